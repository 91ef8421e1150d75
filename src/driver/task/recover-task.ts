// RecoverTask: finds the VM of a task again after the plugin or the agent was restarted. A VM whose identity is not proven is
// never taken over, and never replaced by a second one here: Nomad destroys it first.

import { join } from "node:path";
import * as v from "valibot";
import { Machine } from "../../machine/machine.ts";
import type { VmRecords } from "../../machine/records/vm-records.ts";
import { reasonOf } from "../../system/error.ts";
import { exists } from "../../system/files.ts";
import { RecoverError } from "../errors.ts";
import { taskLabels } from "./labels.ts";
import { Task } from "./task.ts";

const stateSchema = v.object({
  version: v.literal(1),
  // Also a folder's name: no other characters may pass.
  machineId: v.pipe(v.string(), v.regex(/^[0-9a-f]{8}$/)),
});

/** The state that Nomad keeps of a task for the driver. */
export function encodeDriverState(machineId: string): Uint8Array {
  return Buffer.from(JSON.stringify({ version: 1, machineId }));
}

export function decodeDriverState(taskId: string, state: Uint8Array): { machineId: string } {
  try {
    return v.parse(stateSchema, JSON.parse(Buffer.from(state).toString("utf8")));
  } catch (error) {
    throw new RecoverError({
      taskId,
      reason: `its stored state is of no version that this driver reads (${reasonOf(error)})`,
    });
  }
}

/** Fails with RecoverError. */
export async function recoverTask(options: {
  taskId: string;
  taskName: string;
  driverState: Uint8Array;
  records: VmRecords;
}): Promise<Task> {
  const { taskId, records } = options;
  const { machineId } = decodeDriverState(taskId, options.driverState);
  const vm = await records.read(machineId);
  if (vm === undefined) {
    const directory = join(records.directory, machineId);
    const left = await exists(directory);
    const reason = left
      ? `the record in ${directory} is of no version that this driver reads; end its VM with the driver that started it`
      : `VM ${machineId} is no longer on this host`;
    throw new RecoverError({ taskId, reason });
  }
  const { phase } = vm.record;
  const labels = taskLabels(vm.record);
  if (labels?.taskId !== taskId || !(phase === "running" || phase === "killed")) {
    throw new RecoverError({ taskId, reason: `VM ${machineId} is not running this task` });
  }
  const machine = Machine.adopt(vm, records);
  try {
    await machine.checkSupervisor();
  } catch (error) {
    machine[Symbol.dispose]();
    throw new RecoverError({ taskId, reason: reasonOf(error), cause: error });
  }
  return new Task({
    id: taskId,
    name: options.taskName,
    machine,
    startedAt: labels.startedAt,
    stopSignal: labels.stopSignal,
  });
}
