import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import {
  type CgroupHierarchies,
  cpuWeight,
  createGroup,
  emptyGroup,
  findCgroups,
  groupDirectories,
  oomKills,
} from "./cgroups.ts";

const limits = { memoryBytes: 1 << 28, cpuShares: 1024, cpuPercent: 50, pids: 512 };

describe("finding cgroups", () => {
  it("version 2", async () => {
    const found = await findCgroups("30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n");
    assert.deepEqual([found?.version, found?.mounts.memory], [2, "/sys/fs/cgroup"]);
  });

  it("version 1, also where the unified hierarchy is mounted beside it", async () => {
    const found = await findCgroups(
      [
        "31 20 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw",
        "32 20 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct",
        "33 20 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory",
      ].join("\n"),
    );
    assert.deepEqual(found, {
      version: 1,
      mounts: { cpu: "/sys/fs/cgroup/cpu,cpuacct", memory: "/sys/fs/cgroup/memory" },
    });
  });

  it("none", async () => assert.equal(await findCgroups("1 2 0:1 / / rw - ext4 /dev/vda rw\n"), undefined));
});

describe("a group", () => {
  it("of version 2 is made with its limits, its controllers enabled on the way", async () => {
    const root = await mkdtemp(join(tmpdir(), "cgroup2-"));
    const hierarchies: CgroupHierarchies = {
      version: 2,
      mounts: { cpu: root, cpuset: root, memory: root, pids: root },
    };
    const options = { hierarchies, parent: "ours", name: "vm", limits };
    const directory = join(root, "ours/vm");
    assert.deepEqual(groupDirectories(options), [directory]);
    // Stands in for the kernel, which fills a new directory.
    for (const level of [root, join(root, "ours"), directory]) {
      await mkdir(level, { recursive: true });
      await writeFile(join(level, "cgroup.controllers"), "cpuset cpu io memory pids\n");
      for (const file of ["cgroup.subtree_control", "memory.max", "cpu.weight", "cpu.max", "pids.max"]) {
        await writeFile(join(level, file), "");
      }
    }
    await createGroup(options);
    const read = (path: string): Promise<string> => readFile(join(root, path), "utf8");
    assert.equal(await read("ours/cgroup.subtree_control"), "+cpu +cpuset +memory +pids");
    assert.equal(await read("ours/vm/memory.max"), `${1 << 28}`);
    assert.equal(await read("ours/vm/cpu.weight"), "39");
    assert.equal(await read("ours/vm/cpu.max"), "50000 100000");
    await rm(root, { recursive: true });
  });

  it("of version 1 has a directory in each hierarchy, cpuset's only for reserved cores", () => {
    const hierarchies: CgroupHierarchies = { version: 1, mounts: { cpu: "/c", cpuset: "/s", memory: "/m" } };
    const options = { hierarchies, parent: "ours", name: "vm" };
    assert.deepEqual(groupDirectories({ ...options, limits }), ["/c/ours/vm", "/m/ours/vm"]);
    assert.deepEqual(groupDirectories({ ...options, limits: { cpuset: "0" } }), [
      "/c/ours/vm",
      "/s/ours/vm",
      "/m/ours/vm",
    ]);
  });

  it("bounds huge pages where the kernel counts them", async () => {
    const root = await mkdtemp(join(tmpdir(), "cgroup-huge-"));
    const options = {
      hierarchies: { version: 1, mounts: { hugetlb: root } },
      parent: "ours",
      name: "vm",
      limits: { hugePageBytes: 4 << 20 },
    } as const;
    await createGroup(options);
    await writeFile(join(root, "ours/vm/hugetlb.2MB.limit_in_bytes"), "");
    await createGroup(options);
    assert.equal(await readFile(join(root, "ours/vm/hugetlb.2MB.limit_in_bytes"), "utf8"), `${4 << 20}`);
    await rm(root, { recursive: true });
  });

  it("that is not there is empty", async () => {
    assert.equal(await emptyGroup({ directories: ["/nowhere"], timeoutMs: 100 }), true);
  });

  it("counts the kernel's kills in it", async () => {
    const directory = await mkdtemp(join(tmpdir(), "cgroup-oom-"));
    assert.equal(await oomKills([directory]), 0);
    await writeFile(join(directory, "memory.events"), "low 0\nmax 7\noom 2\noom_kill 1\noom_group_kill 0\n");
    assert.equal(await oomKills([directory]), 1);
    await rm(directory, { recursive: true });
  });
});

describe("CPU weight", () => {
  it("keeps the order of shares and the kernel's bounds", () => {
    fc.assert(
      fc.property(fc.nat(300_000), fc.nat(300_000), (a, b) => {
        assert.ok(cpuWeight(a) >= 1 && cpuWeight(a) <= 10_000);
        if (a <= b) assert.ok(cpuWeight(a) <= cpuWeight(b));
      }),
    );
  });
});
