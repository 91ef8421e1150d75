// A process is known by pid and start time together: pids are reused, start times of a pid are not (within a boot).
// Source of the start time: field 22 of /proc/PID/stat, counted after the last ')', in clock ticks since boot.
import { readdir, readFile } from "node:fs/promises";

export interface ProcessIdentity {
  readonly pid: number;
  /** Clock ticks since boot, as a decimal string. */
  readonly startTime: string;
}

/** The process's start time, or undefined when there is no such process (or only its zombie). */
export async function readStartTime(pid: number): Promise<string | undefined> {
  let stat: string;
  try {
    stat = await readFile(`/proc/${pid}/stat`, "utf8");
  } catch {
    return undefined;
  }
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const state = fields[0];
  if (state === "Z" || state === "X") return undefined;
  return fields[19];
}

export async function ownIdentity(): Promise<ProcessIdentity> {
  return { pid: process.pid, startTime: (await readStartTime(process.pid)) ?? "" };
}

export async function isAlive(identity: ProcessIdentity): Promise<boolean> {
  return (await readStartTime(identity.pid)) === identity.startTime;
}

/** Sends the signal if the process is still the same one; false when it is gone. */
export async function killProcess(identity: ProcessIdentity, signal: NodeJS.Signals): Promise<boolean> {
  if (!(await isAlive(identity))) return false;
  try {
    process.kill(identity.pid, signal);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return false;
    throw error;
  }
}

/** The process that was started with this argument, e.g. by a parent that died before it wrote down whom it started. */
export async function findByArgument(argument: string): Promise<ProcessIdentity | undefined> {
  for (const name of await readdir("/proc")) {
    const pid = Number(name);
    if (!Number.isInteger(pid) || pid === process.pid) continue;
    const words = (await readFile(`/proc/${pid}/cmdline`, "latin1").catch(() => "")).split("\0");
    if (!words.includes(argument)) continue;
    const startTime = await readStartTime(pid);
    if (startTime !== undefined) return { pid, startTime };
  }
  return undefined;
}
