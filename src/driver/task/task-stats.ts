// TaskStats: a sample at once, then one per interval. It has two sources. The VM's processes on the host give the CPU
// time that the task costs (the guest's share is in the VMM's). The task's cgroup in the guest alone knows user from
// system time, and memory by its kinds. The guest's figures are hostile: they are clamped to the VM's size.
import { setTimeout as delay } from "node:timers/promises";
import type { GuestProcess, GuestStats } from "../../guest/stats.ts";
import type { HostProcess } from "../../machine/machine.ts";
import type { ProcessStats, TaskStats } from "../nomad-driver.ts";
import type { Task } from "./task.ts";

export interface TaskStatsOptions {
  readonly task: Task;
  readonly intervalMs: number;
  /** MHz of one host core, 0 if unknown. */
  readonly coreMhz: number;
  readonly signal: AbortSignal;
}

export async function* taskStats(options: TaskStatsOptions): AsyncGenerator<TaskStats, void, undefined> {
  const { task } = options;
  const signal = AbortSignal.any([options.signal, task.machine.ended]);
  const { vcpuCount, memSizeMib } = task.machine.record;
  let previous: Readings | undefined;
  while (!signal.aborted) {
    // Without an answer of the guest there is no sample; the stream stays open for the next.
    const guest = await task.guest.stats({ signal }).catch(() => undefined);
    if (guest !== undefined) {
      const host = await task.machine.hostProcesses();
      const readings: Readings = { guest, host, atMs: performance.now() };
      yield toSample({ readings, previous, vcpuCount, memSizeMib, coreMhz: options.coreMhz });
      previous = readings;
    }
    await delay(options.intervalMs, undefined, { signal }).catch(() => undefined);
  }
}

/** All figures at one moment. */
export interface Readings {
  readonly guest: GuestStats;
  readonly host: readonly HostProcess[];
  readonly atMs: number;
}

export function toSample(options: {
  readings: Readings;
  previous: Readings | undefined;
  vcpuCount: number;
  memSizeMib: number;
  coreMhz: number;
}): TaskStats {
  const { readings, previous, vcpuCount, memSizeMib, coreMhz } = options;
  const { guest } = readings;
  const elapsedMs = previous === undefined ? 0 : readings.atMs - previous.atMs;
  const percent = (usedMs: number): number => (elapsedMs > 0 ? Math.max(usedMs / elapsedMs, 0) * 100 : 0);
  const guestPercent = (usedMs: number): number => clamp(percent(usedMs), vcpuCount * 100);
  const bytes = (value: number): number => clamp(value, memSizeMib * 1024 * 1024);
  const since = (key: "cpuUserUs" | "cpuSystemUs"): number =>
    previous === undefined ? 0 : (guest[key] - previous.guest[key]) / 1000;

  const processes = new Map<string, ProcessStats>();
  let hostPercent = 0;
  for (const process of readings.host) {
    const { name, pid, usage } = process;
    const before = previous?.host.find((other) => other.pid === pid && other.name === name)?.usage ?? usage;
    const cpu = {
      userPercent: percent(usage.userMs - before.userMs),
      systemPercent: percent(usage.systemMs - before.systemMs),
    };
    hostPercent += cpu.userPercent + cpu.systemPercent;
    processes.set(`${name}-${pid}`, { ...cpu, rssBytes: usage.residentBytes });
  }
  const earlier = new Map(previous?.guest.processes.map((process) => [process.pid, process]));
  for (const process of guest.processes) {
    const before: GuestProcess = earlier.get(process.pid) ?? process;
    processes.set(`${process.pid}`, {
      userPercent: guestPercent((process.cpuUserUs - before.cpuUserUs) / 1000),
      systemPercent: guestPercent((process.cpuSystemUs - before.cpuSystemUs) / 1000),
      rssBytes: bytes(process.residentBytes),
    });
  }
  return {
    at: new Date(),
    cpu: {
      percent: hostPercent,
      userPercent: guestPercent(since("cpuUserUs")),
      systemPercent: guestPercent(since("cpuSystemUs")),
      totalTicks: (hostPercent / 100) * coreMhz,
    },
    memory: {
      rssBytes: bytes(guest.memoryAnonBytes),
      cacheBytes: bytes(guest.memoryFileBytes),
      usageBytes: bytes(guest.memoryCurrentBytes),
      maxUsageBytes: bytes(guest.memoryPeakBytes),
      kernelUsageBytes: bytes(guest.memoryKernelBytes),
      swapBytes: bytes(guest.memorySwapBytes),
    },
    processes,
  };
}

const clamp = (value: number, maximum: number): number =>
  Number.isFinite(value) ? Math.min(Math.max(value, 0), maximum) : 0;
