import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseTaskConfig } from "../config/task/task-config.ts";
import { type MachineSize, machineSize } from "./machine-size.ts";

const reserved = { cpuMhz: 300, cpusetCpus: "", cpusetCgroup: "", memoryMib: 256, memoryMaxMib: 0 };

function size(config: object, resources: object = {}, more: object = {}): MachineSize {
  return machineSize({
    settings: parseTaskConfig({ image: "x", ...config }),
    resources: { ...reserved, ...resources },
    coreMhz: 2000,
    hostCores: 4,
    ...more,
  });
}

describe("a VM within its reservation", () => {
  it("has at most the memory that the job reserved; the message names both lines to change", () => {
    assert.equal(size({ mem_size: 256 }).memSizeMib, 256);
    assert.equal(size({ mem_size: 200 }).memSizeMib, 200);
    assert.throws(() => size({ mem_size: 2911 }), {
      message:
        "config: mem_size = 2911: is more than the task's memory = 256: set resources { memory = 2911 } or config { mem_size = 256 } (config)",
    });
  });

  it("has up to memory_max if the cluster gives it", () => {
    assert.equal(size({ mem_size: 512 }, { memoryMaxMib: 512 }).memSizeMib, 512);
    assert.throws(
      () => size({ mem_size: 513 }, { memoryMaxMib: 512 }),
      /the task's memory_max = 512: set resources { memory_max = 513 }/,
    );
  });

  it("names no mem_size that no guest could boot with", () => {
    assert.throws(() => size({ mem_size: 256 }, { memoryMib: 64 }), /set resources { memory = 256 } \(config\)$/);
  });

  it("has at most the reserved cores, or those of the host, and two everywhere", () => {
    assert.equal(size({ vpu_count: 4 }).vcpuCount, 4);
    assert.equal(size({ vpu_count: 2 }, {}, { hostCores: 1 }).vcpuCount, 2);
    assert.equal(size({ vpu_count: 2 }, { cpusetCpus: "1,3" }).vcpuCount, 2);
    assert.throws(
      () => size({ vpu_count: 3 }, { cpusetCpus: "1,3" }),
      /vpu_count = 3: is more than the task's cores = 2: set resources { cores = 3 } or config { vpu_count = 2 }/,
    );
    assert.throws(() => size({ vpu_count: 8 }), /vpu_count = 8: is more than the 4 .* which has 4 cores/);
    assert.equal(size({}, { cpuMhz: 20_000 }).vcpuCount, 4);
  });

  it("is not bounded with allow_oversize", () => {
    const { memSizeMib, vcpuCount } = size({ mem_size: 2911, vpu_count: 8 }, {}, { allowOversize: true });
    assert.deepEqual([memSizeMib, vcpuCount], [2911, 8]);
  });
});

describe("a VM without cores", () => {
  const groupFor = (cpusetCgroup: string, more: object = {}): string | undefined =>
    size({}, { cpusetCgroup, ...more }).cpu.sharedCores;

  it("shares those of Nomad's group for such tasks, with cgroup v1 and v2", () => {
    const shared = "/sys/fs/cgroup/cpuset/nomad/share";
    assert.equal(groupFor(shared), shared);
    assert.equal(
      groupFor("/sys/fs/cgroup/nomad.slice/share.slice/a1.web.scope"),
      "/sys/fs/cgroup/nomad.slice/share.slice",
    );
    // Nomad 1.6.
    assert.equal(groupFor("/sys/fs/cgroup/nomad.slice/a1.web.scope"), "/sys/fs/cgroup/nomad.slice/a1.web.scope");
    assert.equal(groupFor(""), undefined);
  });

  it("is the only one that does", () => {
    const group = "/sys/fs/cgroup/nomad.slice/reserve.slice/a1.web.scope";
    assert.equal(groupFor(group, { cpusetCpus: "1" }), undefined);
  });
});
