// Nomad's reader of a task's output, and its files.
import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import type { Allocation } from "./allocation.ts";
import { listProcesses } from "./processes.ts";

/** The files that Nomad's logmon has written and not deleted again, the oldest first. */
export async function writtenFiles(
  allocation: Allocation,
  stream: "stdout" | "stderr",
): Promise<{ path: string; sizeBytes: number }[]> {
  const directory = join(allocation.agent.directory, "data/alloc", allocation.id, "alloc/logs");
  const prefix = `main.${stream}.`;
  const numbers = (await readdir(directory).catch(() => [] as string[]))
    .filter((name) => name.startsWith(prefix))
    .map((name) => Number(name.slice(prefix.length)))
    .toSorted((a, b) => a - b);
  return await Promise.all(
    numbers.map(async (number) => {
      const path = join(directory, `${prefix}${number}`);
      return { path, sizeBytes: (await stat(path)).size };
    }),
  );
}

/** Every byte that logmon has written, over all its rotated files. */
export async function written(allocation: Allocation, stream: "stdout" | "stderr"): Promise<string> {
  const files = await writtenFiles(allocation, stream);
  const parts = await Promise.all(files.map(({ path }) => readFile(path, "latin1")));
  return parts.join("");
}

/** The processes that read the task's FIFOs: logmon, and any others within it. */
export async function logmonPids(allocation: Allocation): Promise<number[]> {
  const own = await listProcesses();
  return own
    .filter(({ commandLine, parentPid }) => commandLine.endsWith(" logmon") && parentPid === allocation.agent.pid)
    .map(({ pid }) => pid);
}
