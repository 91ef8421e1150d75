// The host's processes and programs. A process is known by pid and start time together: within a boot no pid has the same start
// time twice. Source: /proc/PID/stat (proc_pid_stat(5)), whose fields are counted after the last ')'.
import { readFileSync } from "node:fs";
import { access, constants, readdir, readFile, realpath } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { requireTrusted } from "./trusted-path.ts";

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

/** Sends the signal if the process is still the same one; returns false if it is gone. */
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

/** Finds the process with this argument, e.g. after its parent died before it wrote down the child's pid. */
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

export interface ProcessUsage {
  readonly userMs: number;
  readonly systemMs: number;
  readonly residentBytes: number;
}

/** The kernel's clock tick and page, the same on every Linux on x86-64. */
const msPerTick = 10;
const pageBytes = 4096;

/**
 * Fields 14, 15 and 24; undefined if the process is gone. Not asynchronous: the file is the kernel's memory, and the samples of
 * each VM would go to the thread pool and back a dozen times a second.
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

/** The file of a program on PATH, or of a path (a name with a slash), with links resolved; undefined if there is none. */
export async function findProgram(name: string): Promise<string | undefined> {
  const found = await findOnPath(name);
  return found === undefined ? undefined : await realpath(found);
}

/** As findProgram, for a program that runs or makes VMs. Fails with UntrustedPathError if others than root could exchange it. */
export async function findTrustedProgram(name: string): Promise<string | undefined> {
  const found = await findOnPath(name);
  if (found === undefined) return undefined;
  await requireTrusted({ path: found, name: `the program ${found}` });
  return await realpath(found);
}

async function findOnPath(name: string): Promise<string | undefined> {
  const candidates = name.includes("/")
    ? [name]
    : (process.env["PATH"] ?? "").split(delimiter).map((directory) => join(directory, name));
  for (const candidate of candidates) {
    try {
      await access(candidate, constants.X_OK);
      return candidate;
    } catch {
      // The next one.
    }
  }
  return undefined;
}

/**
 * A command that runs in a network namespace, by the namespace's file; undefined means the caller's own. The program replaces
 * nsenter and keeps its pid. `ip netns exec` would mount another /sys.
 */
export function inNamespace(path: string | undefined, argv: readonly [string, ...string[]]): [string, ...string[]] {
  return path === undefined ? [...argv] : ["nsenter", `--net=${path}`, "--", ...argv];
}
