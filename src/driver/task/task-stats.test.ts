import assert from "node:assert/strict";
import { test } from "node:test";
import type { GuestStats } from "../../guest/stats.ts";
import { type Readings, toSample } from "./task-stats.ts";

const guest: GuestStats = {
  cpuUsageUs: 0,
  cpuUserUs: 0,
  cpuSystemUs: 0,
  memoryCurrentBytes: 30,
  memoryPeakBytes: 40,
  memoryAnonBytes: 10,
  memoryFileBytes: 20,
  memoryKernelBytes: 5,
  memorySwapBytes: 0,
  oomKills: 0,
  processes: [],
  init: { residentBytes: 0, descriptors: 0, children: 0 },
};
const vmm = (userMs: number, systemMs: number) => ({
  name: "vmm",
  pid: 77,
  usage: { userMs, systemMs, residentBytes: 500 },
});
const vm = { vcpuCount: 2, memSizeMib: 1, coreMhz: 2000 };

test("CPU is the host's cost, its split the guest's; each process is there, the VM's own by name", () => {
  const previous: Readings = {
    guest: { ...guest, processes: [{ pid: 1, cpuUserUs: 0, cpuSystemUs: 0, residentBytes: 9 }] },
    host: [vmm(100, 0)],
    atMs: 0,
  };
  const readings: Readings = {
    guest: {
      ...guest,
      cpuUserUs: 300_000,
      cpuSystemUs: 100_000,
      processes: [
        { pid: 1, cpuUserUs: 300_000, cpuSystemUs: 100_000, residentBytes: 9 },
        { pid: 5, cpuUserUs: 7_000, cpuSystemUs: 0, residentBytes: 8 },
      ],
    },
    host: [vmm(600, 50)],
    atMs: 1000,
  };
  const sample = toSample({ readings, previous, ...vm });
  const rounded = (value: number): number => Math.round(value * 1000) / 1000;
  assert.deepEqual(Object.values(sample.cpu).map(rounded), [55, 30, 10, 1100]);
  assert.deepEqual(sample.memory, {
    rssBytes: 10,
    cacheBytes: 20,
    usageBytes: 30,
    maxUsageBytes: 40,
    kernelUsageBytes: 5,
    swapBytes: 0,
  });
  assert.deepEqual([...sample.processes.keys()], ["vmm-77", "1", "5"]);
  assert.equal(sample.processes.get("vmm-77")?.rssBytes, 500);
  assert.equal(rounded(sample.processes.get("1")?.userPercent ?? 0), 30);
  // A process that is new has no difference yet.
  assert.equal(sample.processes.get("5")?.userPercent, 0);
});

test("the first sample has no CPU, and a guest can't claim more than its VM has", () => {
  const first = toSample({ readings: { guest, host: [vmm(100, 0)], atMs: 0 }, previous: undefined, ...vm });
  assert.equal(first.cpu.percent, 0);
  const lying: GuestStats = { ...guest, cpuUserUs: 1e18, cpuSystemUs: -1e18, memoryAnonBytes: 1e18 };
  const sample = toSample({
    readings: { guest: lying, host: [], atMs: 1000 },
    previous: { guest, host: [], atMs: 0 },
    ...vm,
  });
  assert.equal(sample.cpu.userPercent, 200);
  assert.equal(sample.cpu.systemPercent, 0);
  assert.equal(sample.memory.rssBytes, 1024 * 1024);
});
