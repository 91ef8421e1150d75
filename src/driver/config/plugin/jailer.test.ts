import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { machineSize } from "../../start/machine-size.ts";
import { parseTaskConfig } from "../task/task-config.ts";
import { type PluginSettings, parsePluginConfig } from "./plugin-config.ts";

const parseJailer = (config: object): PluginSettings["jailer"] => parsePluginConfig(config).jailer;

describe("the jailer block", () => {
  it("is on by default", () => {
    const expected = { enabled: true, users: { first: 70_000, last: 79_999 }, parentCgroup: "litegix-fc-driver" };
    assert.deepEqual(parseJailer({}), expected);
    assert.deepEqual(parseJailer({ jailer: null }), expected);
  });

  it("takes its keys", () => {
    const jailer = { enabled: false, uid_range: "5000-5001", parent_cgroup: "vms/litegix" };
    assert.deepEqual(parseJailer({ jailer }), {
      enabled: false,
      users: { first: 5000, last: 5001 },
      parentCgroup: "vms/litegix",
    });
  });

  it("refuses root, malformed ranges, and cgroups elsewhere", () => {
    for (const uid_range of ["0-10", "10-5", "5", "a-b", "1-4294967295"]) {
      assert.throws(() => parseJailer({ jailer: { uid_range } }), /jailer.uid_range/);
    }
    for (const parent_cgroup of ["", "/x", "../x", "a//b"]) {
      assert.throws(() => parseJailer({ jailer: { parent_cgroup } }), /jailer.parent_cgroup/);
    }
  });
});

describe("a VM's part of the host's CPUs", () => {
  const resources = { cpuMhz: 500, cpusetCpus: "", cpusetCgroup: "", memoryMib: 256, memoryMaxMib: 0 };
  const size = (config: object, changed: object = {}): ReturnType<typeof machineSize> =>
    machineSize({
      settings: parseTaskConfig({ image: "a", ...config }),
      resources: { ...resources, ...changed },
      coreMhz: 2000,
      hostCores: 8,
    });

  it("is weighted by resources.cpu", () => {
    assert.deepEqual(size({}), {
      vcpuCount: 1,
      memSizeMib: 256,
      cpu: { shares: 500, percent: undefined, cpuset: undefined, sharedCores: undefined },
    });
  });

  it("is limited by it with cpu_hard_limit", () => assert.equal(size({ cpu_hard_limit: true }).cpu.percent, 25));

  it("is the reserved cores, a vCPU each", () => {
    const { vcpuCount, cpu } = size({}, { cpusetCpus: "0,2-3" });
    assert.deepEqual([vcpuCount, cpu.cpuset], [3, "0,2-3"]);
  });

  it("has a vCPU for each core that resources.cpu begins", () => assert.equal(size({}, { cpuMhz: 4001 }).vcpuCount, 3));
});
