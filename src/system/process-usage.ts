// What a process has used so far, by /proc/PID/stat (proc_pid_stat(5)): fields 14, 15 and 24, counted after the last ')'.
import { readFileSync } from "node:fs";
import type { ProcessIdentity } from "./process-identity.ts";

export interface ProcessUsage {
  readonly userMs: number;
  readonly systemMs: number;
  readonly residentBytes: number;
}

/** Of the kernel's clock ticks and pages, as every Linux on x86-64 has them. */
const msPerTick = 10;
const pageBytes = 4096;

/**
 * Undefined when the process is gone. Not asynchronous: the file is the kernel's memory, which nobody waits for, and each second's
 * samples of each VM would go to the thread pool and back a dozen times.
 */
export function readUsage(identity: ProcessIdentity): ProcessUsage | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${identity.pid}/stat`, "utf8");
  } catch {
    return undefined;
  }
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  if (fields[19] !== identity.startTime) return undefined;
  return {
    userMs: Number(fields[11]) * msPerTick,
    systemMs: Number(fields[12]) * msPerTick,
    residentBytes: Number(fields[21]) * pageBytes,
  };
}
