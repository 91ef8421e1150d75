// Processes as /proc shows them.
import { readdir, readFile } from "node:fs/promises";
import { waitFor } from "./wait.ts";

export interface SeenProcess {
  readonly pid: number;
  readonly parentPid: number;
  readonly commandLine: string;
}

async function readProcess(pid: number): Promise<SeenProcess | undefined> {
  try {
    const [stat, commandLine] = await Promise.all([
      readFile(`/proc/${pid}/stat`, "latin1"),
      readFile(`/proc/${pid}/cmdline`, "latin1"),
    ]);
    const [state, parentPid] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    if (state === "Z" || state === "X") return undefined;
    return { pid, parentPid: Number(parentPid), commandLine: commandLine.replaceAll("\0", " ").trim() };
  } catch {
    return undefined;
  }
}

export async function listProcesses(): Promise<SeenProcess[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name)).map(Number);
  const seen = await Promise.all(pids.map(readProcess));
  return seen.filter((process) => process !== undefined);
}

export async function isRunning(pid: number): Promise<boolean> {
  return (await readProcess(pid)) !== undefined;
}

export async function waitUntilGone(options: { pid: number; timeoutMs: number }): Promise<void> {
  await waitFor({
    what: `process ${options.pid} to end`,
    timeoutMs: options.timeoutMs,
    attempt: async () => ((await isRunning(options.pid)) ? undefined : true),
  });
}
