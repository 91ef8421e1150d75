// Processes as /proc shows them.
import assert from "node:assert/strict";
import { once } from "node:events";
import { readdir, readFile, readlink } from "node:fs/promises";
import { createServer } from "node:net";
import { runSuccessfully } from "./command.ts";
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

export type Namespace = "net" | "ipc" | "uts" | "cgroup" | "pid" | "mnt";

/** The namespaces among these that the process shares with this one, which has those of the host or of the agent. */
export async function sharedNamespaces(pid: number, names: readonly Namespace[]): Promise<Namespace[]> {
  const pairs = await Promise.all(
    names.map(async (name) => ({
      name,
      theirs: await readlink(`/proc/${pid}/ns/${name}`),
      own: await readlink(`/proc/self/ns/${name}`),
    })),
  );
  return pairs.filter(({ theirs, own }) => theirs === own).map(({ name }) => name);
}

/** The process's network namespace has a loopback interface that is down, and none of this one's abstract unix sockets. */
export async function assertEmptyNetwork(pid: number): Promise<void> {
  const name = `litegix-e2e-${process.pid}`;
  const server = createServer().listen(`\0${name}`);
  await once(server, "listening");
  try {
    const seen = async (of: string): Promise<boolean> =>
      (await readFile(`/proc/${of}/net/unix`, "latin1")).includes(`@${name}`);
    assert.deepEqual([await seen("self"), await seen(`${pid}`)], [true, false]);
  } finally {
    server.close();
  }
  const args = [`--net=/proc/${pid}/ns/net`, "ip", "-j", "link"];
  const links = JSON.parse(await runSuccessfully({ file: "nsenter", args })) as { ifname: string; flags: string[] }[];
  assert.deepEqual(
    links.map(({ ifname, flags }) => [ifname, flags.includes("UP")]),
    [["lo", false]],
  );
}
