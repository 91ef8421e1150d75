// What a process has used so far, by /proc/PID/stat (proc_pid_stat(5)): fields 14, 15 and 24, counted after the last ')'.
import { readFile } from "node:fs/promises";
import type { ProcessIdentity } from "./process-identity.ts";

export interface ProcessUsage {
  readonly userMs: number;
  readonly systemMs: number;
  readonly residentBytes: number;
}

/** Of the kernel's clock ticks and pages, as every Linux on x86-64 has them. */
const msPerTick = 10;
const pageBytes = 4096;

/** Undefined when the process is gone. */
export async function readUsage(identity: ProcessIdentity): Promise<ProcessUsage | undefined> {
  const stat = await readFile(`/proc/${identity.pid}/stat`, "utf8").catch(() => "");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  if (fields[19] !== identity.startTime) return undefined;
  return {
    userMs: Number(fields[11]) * msPerTick,
    systemMs: Number(fields[12]) * msPerTick,
    residentBytes: Number(fields[21]) * pageBytes,
  };
}
