// What a guest says of its task's use of CPU and memory, in numbers that JavaScript counts with.
import type { StatsResponse } from "../gen/litegix/guest/v1/guest_pb.js";

export interface GuestStats {
  readonly cpuUsageUs: number;
  readonly cpuUserUs: number;
  readonly cpuSystemUs: number;
  readonly memoryCurrentBytes: number;
  readonly memoryPeakBytes: number;
  readonly memoryAnonBytes: number;
  readonly memoryFileBytes: number;
  readonly memoryKernelBytes: number;
  readonly memorySwapBytes: number;
  /** Processes of the task that the guest's kernel killed for want of memory. */
  readonly oomKills: number;
  /** Of the guest's agent itself. */
  readonly init: { readonly residentBytes: number; readonly descriptors: number; readonly children: number };
  /** Some of the task's where there are many. */
  readonly processes: readonly GuestProcess[];
}

export interface GuestProcess {
  /** As the task sees it. */
  readonly pid: number;
  readonly cpuUserUs: number;
  readonly cpuSystemUs: number;
  readonly residentBytes: number;
}

/** More than an honest guest lists. */
const mostProcesses = 64;

export function guestStats(answer: StatsResponse): GuestStats {
  return {
    cpuUsageUs: Number(answer.cpuUsageUs),
    cpuUserUs: Number(answer.cpuUserUs),
    cpuSystemUs: Number(answer.cpuSystemUs),
    memoryCurrentBytes: Number(answer.memoryCurrentBytes),
    memoryPeakBytes: Number(answer.memoryPeakBytes),
    memoryAnonBytes: Number(answer.memoryAnonBytes),
    memoryFileBytes: Number(answer.memoryFileBytes),
    memoryKernelBytes: Number(answer.memoryKernelBytes),
    memorySwapBytes: Number(answer.memorySwapBytes),
    oomKills: Number(answer.oomKills),
    init: {
      residentBytes: Number(answer.initResidentBytes),
      descriptors: answer.initDescriptors,
      children: answer.initChildren,
    },
    processes: answer.processes.slice(0, mostProcesses).map((process) => ({
      pid: process.pid,
      cpuUserUs: Number(process.cpuUserUs),
      cpuSystemUs: Number(process.cpuSystemUs),
      residentBytes: Number(process.residentBytes),
    })),
  };
}
