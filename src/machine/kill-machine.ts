// Ends every process of a VM: asks the supervisor first, then the kernel.
import { emptyGroup, processesOf } from "../system/cgroups.ts";
import { findByArgument, isAlive, killProcess, type ProcessIdentity } from "../system/processes.ts";
import { pollUntil } from "../system/wait.ts";
import { MachineStuckError } from "./errors.ts";
import { readShimState, type ShimState } from "./records/shim-state.ts";
import type { RecordedVm } from "./records/vm-records.ts";
import { ShimClient } from "./shim-client.ts";

/** From SIGKILL until the kernel has taken a process down: a busy host gives back a VM's memory slowly. */
export const deathTimeoutMs = 30_000;
/** From the supervisor's answer until its own end. */
const supervisorEndTimeoutMs = 2_000;

/** Safe to repeat. Fails with MachineStuckError. */
export async function killMachine(vm: RecordedVm): Promise<void> {
  const { id } = vm.record;
  const directories = [...vm.record.supervisorCgroups, ...vm.record.cgroups];
  try {
    using shim = new ShimClient({ controlSocket: vm.files.controlSocket });
    await shim.kill();
  } catch {
    // No supervisor answers: the rest asks the kernel instead.
  }
  // The supervisor ends by itself once the VMM is reaped and the record written; its death takes its children along.
  for (const [index, identity] of (await identitiesOf(vm)).entries()) {
    if (await diesWithin(identity, index === 0 ? supervisorEndTimeoutMs : 0)) continue;
    await killProcess(identity, "SIGKILL");
    if (!(await diesWithin(identity, deathTimeoutMs))) throw new MachineStuckError({ id, pid: identity.pid });
  }
  // Processes that the supervisor had no time to report, and those that no longer die with it.
  if (await emptyGroup({ directories, timeoutMs: deathTimeoutMs })) return;
  throw new MachineStuckError({ id, pid: (await processesOf(directories))[0] ?? 0 });
}

/** The supervisor first, then the VMM, as far as they are known. */
export async function identitiesOf(vm: RecordedVm, known?: ShimState): Promise<ProcessIdentity[]> {
  const state = known ?? (await readShimState(vm.files.shimState));
  if (state !== undefined) {
    return [
      { pid: state.shim_pid, startTime: state.shim_start_time },
      { pid: state.vmm_pid, startTime: state.vmm_start_time },
    ];
  }
  const shim = vm.record.shim ?? (await findByArgument(vm.files.shimConfig));
  return shim === undefined ? [] : [shim];
}

async function diesWithin(identity: ProcessIdentity, timeoutMs: number): Promise<boolean> {
  try {
    return await pollUntil({
      attempt: async () => ((await isAlive(identity)) ? undefined : true),
      intervalMs: 10,
      timeoutMs,
      onTimeout: () => new Error("alive"),
    });
  } catch {
    return false;
  }
}
