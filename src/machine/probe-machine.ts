// The VM that proves that this host runs VMs. It is made, jailed and ended like a task's, with a guest that prints a
// word and restarts.
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { raceAbort } from "../system/wait.ts";
import type { MachineSpec } from "../vmm/machine-spec.ts";
import type { ProbeOutcome } from "../vmm/probe-kvm.ts";
import { bootMachine } from "./create/boot-machine.ts";
import type { MachineHost } from "./create/create-machine.ts";
import { fileEnd } from "./log-tail.ts";
import { BootTimeline } from "./timeline.ts";

const consoleBytes = 64 * 1024;

/** `timeoutMs` is in the VMM's own time (system/own-time.ts). Fails as bootMachine does, or with the signal's reason. */
export async function runProbeMachine(options: {
  host: MachineHost;
  spec: MachineSpec;
  timeoutMs: number;
  signal: AbortSignal;
}): Promise<ProbeOutcome> {
  const { host, spec, timeoutMs, signal } = options;
  const request = { spec, cpu: {}, labels: {}, madeFor: "the probe of this host" };
  const { machine } = await bootMachine({ host, request, timeline: new BootTimeline(), signal });
  try {
    const seccomp = await hasSeccompFilter(await machine.vmmPid());
    const start = performance.now();
    using deadline = await machine.deadline(timeoutMs);
    const exited = machine.exited.then(() => true);
    const overtime = once(deadline.signal, "abort").then(() => false);
    const ended = await raceAbort(Promise.race([exited, overtime]), signal);
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

/** Mode 2 of seccomp(2). A guest that has ended already leaves no process to inspect. */
async function hasSeccompFilter(pid: number | undefined): Promise<boolean> {
  const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
  return /^Seccomp:\s*2$/m.test(status);
}
