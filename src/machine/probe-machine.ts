// The VM that proves that this host runs VMs: made, jailed and ended as a task's is, with a guest that prints a word and restarts.
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { OwnTimeDeadline } from "../system/own-time.ts";
import { raceAbort } from "../system/wait.ts";
import type { ProbeOutcome } from "../vmm/probe-kvm.ts";
import { type MachineHost, startMachine } from "./create/create-machine.ts";
import { fileEnd } from "./log-tail.ts";
import { readShimState } from "./records/manifest.ts";
import { BootTimeline } from "./timeline.ts";

const consoleBytes = 64 * 1024;

/** `timeoutMs` is in the VMM's own time (system/own-time.ts). Fails as startMachine does, or with the signal's reason. */
export async function runProbeMachine(options: {
  host: MachineHost;
  vmlinuxPath: string;
  initramfsPath: string;
  kernelArguments: readonly string[];
  timeoutMs: number;
  signal: AbortSignal;
}): Promise<ProbeOutcome> {
  const { machine } = await startMachine({
    host: options.host,
    labels: { purpose: "probe" },
    vcpuCount: 1,
    memSizeMib: 256,
    cpu: {},
    vmlinuxPath: options.vmlinuxPath,
    initramfsPath: options.initramfsPath,
    kernelArguments: options.kernelArguments,
    vsock: false,
    drives: () => [],
    stdoutPath: "/dev/null",
    stderrPath: "/dev/null",
    timeline: new BootTimeline(),
    signal: options.signal,
  });
  try {
    const vmmPid = (await readShimState(machine.files.shimState))?.vmm_pid ?? 0;
    const seccomp = await hasSeccompFilter(vmmPid);
    const start = performance.now();
    using deadline = new OwnTimeDeadline({ pid: vmmPid, timeoutMs: options.timeoutMs });
    const exited = machine.exited.then(() => true);
    const overtime = once(deadline.signal, "abort").then(() => false);
    const ended = await raceAbort(Promise.race([exited, overtime]), options.signal);
    return {
      ended,
      elapsedMs: performance.now() - start,
      console: await fileEnd(machine.files.vmmLog, consoleBytes),
      seccomp,
    };
  } finally {
    await machine.destroy();
  }
}

/** Mode 2 of seccomp(2); a guest that ended already leaves no process to look at. */
async function hasSeccompFilter(pid: number): Promise<boolean> {
  const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
  return /^Seccomp:\s*2$/m.test(status);
}
