// A guest's report of its task's CPU and memory use, as plain numbers.
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
  /** Processes of the task that the guest's kernel killed because memory ran out. */
  readonly oomKills: number;
  /** The guest agent's own figures. */
  readonly init: { readonly residentBytes: number; readonly descriptors: number; readonly children: number };
  /** The task's processes; only some of them if there are many. */
  readonly processes: readonly GuestProcess[];
}

export interface GuestProcess {
  /** The process id in the task's namespace. */
  readonly pid: number;
  readonly cpuUserUs: number;
  readonly cpuSystemUs: number;
  readonly residentBytes: number;
}

/** More than an honest guest lists. */
const maxProcesses = 64;

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
    processes: answer.processes.slice(0, maxProcesses).map((process) => ({
      pid: process.pid,
      cpuUserUs: Number(process.cpuUserUs),
      cpuSystemUs: Number(process.cpuSystemUs),
      residentBytes: Number(process.residentBytes),
    })),
  };
}
