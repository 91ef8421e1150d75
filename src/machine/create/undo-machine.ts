// Removes a VM that did not come up, and gives the reason.
import { TapTakenError } from "../../network/errors.ts";
import { DriverError, reasonOf } from "../../system/error.ts";
import { MachineStartError } from "../errors.ts";
import { lastOutput } from "../log-tail.ts";
import type { Machine } from "../machine.ts";
import type { RecordedVm, VmRecords } from "../records/vm-records.ts";
import { removeMachine } from "../remove-machine.ts";

/** Removes a VM that is not yet watched. Resolves with the error to throw. */
export async function undoCreation(options: {
  vm: RecordedVm;
  records: VmRecords;
  error: unknown;
  signal: AbortSignal;
}): Promise<unknown> {
  const { vm, records, error, signal } = options;
  const explained = await explain({ error, vmmLog: vm.files.vmmLog, machine: undefined, signal });
  await removeMachine(vm, records);
  return explained;
}

/** Ends and removes a VM. Resolves with the error to throw. */
export async function undoBoot(options: { machine: Machine; error: unknown; signal: AbortSignal }): Promise<unknown> {
  const { machine, error, signal } = options;
  const explained = await explain({ error, vmmLog: machine.files.vmmLog, machine, signal });
  if (error instanceof TapTakenError) machine.disownNetwork();
  await machine.destroy();
  return explained;
}

/** The VM's own end explains more than the call that it interrupted. */
async function explain(options: {
  error: unknown;
  vmmLog: string;
  machine: Machine | undefined;
  signal: AbortSignal;
}): Promise<unknown> {
  const { error, vmmLog, machine, signal } = options;
  if (signal.aborted || !(error instanceof Error) || error instanceof MachineStartError) return error;
  const ending = await machine?.endingIfVmmIsGone();
  if (ending !== undefined) return new MachineStartError({ ...ending, cause: error });
  const facts = { reason: reasonOf(error), output: await lastOutput(vmmLog), cause: error };
  return new MachineStartError(error instanceof DriverError ? { ...facts, code: error.code } : facts);
}
