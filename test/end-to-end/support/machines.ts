// VMs as they show on the host: directories, processes, sockets, mounts.
import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Agent } from "./agent.ts";
import type { Allocation } from "./allocation.ts";
import { assertEmptyNetwork, listProcesses, type Namespace, sharedNamespaces } from "./processes.ts";
import { waitFor } from "./wait.ts";

export interface SeenMachine {
  readonly directory: string;
  readonly shimPid: number;
  readonly vmmPid: number;
}

function machinesDirectory(agent: Agent): string {
  return join(agent.basePath, "vms");
}

/** The VM of an allocation's task. */
export async function machineOf(allocation: Allocation): Promise<SeenMachine> {
  const parent = machinesDirectory(allocation.agent);
  for (const name of await readdir(parent)) {
    const directory = join(parent, name);
    const record = await readFile(join(directory, "machine.json"), "utf8").catch(() => "");
    if (!record.includes(allocation.id)) continue;
    const state = JSON.parse(await readFile(join(directory, "shim.json"), "utf8")) as Record<string, unknown>;
    const { shim_pid: shimPid, vmm_pid: vmmPid } = state;
    if (typeof shimPid !== "number" || typeof vmmPid !== "number")
      throw new Error(`${directory}: no pids in shim.json`);
    return { directory, shimPid, vmmPid };
  }
  throw new Error(`no VM of allocation ${allocation.id} in ${parent}`);
}

/** The VMM and its helpers share no such namespace with the host or the allocation, and see no interface of either. */
export async function assertVmmIsApart(
  allocation: Allocation,
  names: readonly Namespace[] = ["net", "ipc", "uts", "cgroup", "pid", "mnt"],
): Promise<void> {
  const { shimPid, vmmPid } = await machineOf(allocation);
  const children = (await listProcesses()).filter(({ parentPid }) => parentPid === shimPid);
  assert.ok(children.some(({ pid }) => pid === vmmPid));
  for (const { pid, commandLine } of children) {
    assert.deepEqual(await sharedNamespaces(pid, names), [], commandLine);
    await assertEmptyNetwork(pid);
  }
}

/** Everything on the host that names the path: processes, unix sockets, mounts, files. */
export async function leftovers(path: string): Promise<string[]> {
  const [processes, sockets, mounts, files] = await Promise.all([
    listProcesses(),
    readFile("/proc/net/unix", "latin1"),
    readFile("/proc/mounts", "latin1"),
    readdir(path).catch(() => [] as string[]),
  ]);
  const lines = (text: string): string[] => text.split("\n").filter((line) => line.includes(path));
  return [
    ...processes
      .filter(({ commandLine }) => commandLine.includes(path))
      .map(({ commandLine }) => `process ${commandLine}`),
    ...lines(sockets).map((line) => `socket ${line}`),
    ...lines(mounts).map((line) => `mount ${line}`),
    ...files.map((name) => `file ${join(path, name)}`),
  ];
}

/** Nomad destroys a task some time after it reported the end. */
export async function waitUntilNothingIsLeft(path: string, timeoutMs = 30_000): Promise<void> {
  let last: string[] = [];
  await waitFor({
    what: `nothing to be left of ${path}`,
    timeoutMs,
    attempt: async () => {
      last = await leftovers(path);
      return last.length === 0 || undefined;
    },
    seen: () => last.join("\n"),
  });
}

export async function waitUntilNoMachineIsLeft(agent: Agent, timeoutMs?: number): Promise<void> {
  await waitUntilNothingIsLeft(machinesDirectory(agent), timeoutMs);
}
