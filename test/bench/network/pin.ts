// Pins a VM and its client to fixed CPUs: otherwise the scheduler's placement gives a round trip one of two times.
import { readdir, readFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { runSuccessfully } from "../../end-to-end/support/command.ts";

const cpus = availableParallelism();
const vcpusCpu = 0;
const othersCpu = 1;

/** The words in front of a client's program. */
export const pinnedClient: readonly string[] = cpus > 1 ? ["taskset", "--cpu-list", `${othersCpu}`] : [];

async function cpuTicks(pid: number, thread: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/task/${thread}/stat`, "latin1");
  const [user, system] = stat
    .slice(stat.lastIndexOf(")") + 2)
    .split(" ")
    .slice(11, 13)
    .map(Number);
  return (user ?? 0) + (system ?? 0);
}

/**
 * Pins the vCPU of a VM with one vCPU, which is its VMM's busiest thread, to one CPU, and the VMM's other threads to
 * the client's.
 */
export async function pinMachine(vmmPid: number): Promise<void> {
  if (cpus === 1) return;
  const threads = (await readdir(`/proc/${vmmPid}/task`)).map(Number);
  const ticks = await Promise.all(threads.map((thread) => cpuTicks(vmmPid, thread)));
  const vcpu = threads[ticks.indexOf(Math.max(...ticks))];
  for (const thread of threads) {
    const cpu = thread === vcpu ? vcpusCpu : othersCpu;
    await runSuccessfully({ file: "taskset", args: ["--pid", "--cpu-list", `${cpu}`, `${thread}`] });
  }
}
