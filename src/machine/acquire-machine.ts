// Gets a VM for a task: one whose agent answers and whose network is open.
import { bootMachine } from "./create/boot-machine.ts";
import type { CreateMachineOptions } from "./create/create-machine.ts";
import { undoBoot } from "./create/undo-machine.ts";
import type { Machine } from "./machine.ts";

export interface AcquireMachineOptions extends CreateMachineOptions {
  /** From the guest's start to its agent's first answer, in the VMM's own time, at most three times as long (system/own-time.ts). */
  readonly bootTimeoutMs: number;
}

/** Fails with MachineStartError or as bootMachine does. */
export async function acquireMachine(options: AcquireMachineOptions): Promise<Machine> {
  const { bootTimeoutMs, timeline, signal } = options;
  const { machine, networkOpen } = await bootMachine(options);
  try {
    await Promise.all([awaitAgent(machine, bootTimeoutMs, signal), networkOpen]);
    timeline.done("agent answered, network open");
    return machine;
  } catch (error) {
    // It must not change the host's network once the VM's is removed.
    await Promise.allSettled([networkOpen]);
    throw await undoBoot({ machine, error, signal });
  }
}

async function awaitAgent(machine: Machine, timeoutMs: number, signal: AbortSignal): Promise<void> {
  using deadline = await machine.deadline(timeoutMs);
  const either = AbortSignal.any([signal, machine.ended]);
  await machine.guest.waitUntilReady({ timeoutMs, deadline: deadline.signal, signal: either });
}
