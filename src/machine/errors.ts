// The errors of a VM's life.
import { DriverError, driverError, reasonOf } from "../system/error.ts";

/** The VM did not come up; the code is its cause's. `output` is the end of the VMM's and the guest console's output. */
export class MachineStartError extends DriverError {
  declare readonly output: string;

  constructor(facts: { code?: string; reason: string; output?: string; cause?: unknown }) {
    const { code = "machine_start", reason, output = "", cause } = facts;
    const text = reason.includes(`(${code})`) ? reason : `${reason} (${code})`;
    super(code, output === "" ? text : `${text}; last output: ${output}`, { output, cause });
  }
}

export class ScratchDiskError extends driverError(
  "scratch_disk",
  (facts: { path: string; cause: unknown }) =>
    `can't make the task's writable disk ${facts.path}: ${reasonOf(facts.cause)}`,
) {}

/** Two tries to end the VM's processes failed; nothing of it has been removed. */
export class MachineStuckError extends driverError(
  "machine_stuck",
  (facts: { id: string; pid: number }) => `VM ${facts.id} can't be ended: process ${facts.pid} survives SIGKILL`,
) {}

/** Every user of the range runs a VM. */
export class NoFreeUserError extends driverError(
  "no_free_user",
  ({ first, last }: { first: number; last: number }) =>
    `no user is free for another jailed VM: all of ${first}-${last} are taken; widen jailer.uid_range in the plugin's config`,
) {}

/** A disk that one VM writes belongs to it alone, as long as it lives. */
export class DriveInUseError extends driverError(
  "drive_in_use",
  (facts: { path: string; holder: { readonly id: string; readonly madeFor: string } | undefined }) => {
    const { path, holder } = facts;
    if (holder === undefined) {
      return `drive ${path} is in use: another drive of this task is the same disk: name it once`;
    }
    return `drive ${path} is in use: VM ${holder.id} of ${holder.madeFor} has it, and what one VM writes no other may have: stop that one first, or let all have it with is_read_only = true`;
  },
) {}

/** The VM's cgroup can't be made. */
export class CgroupError extends driverError(
  "cgroup",
  (facts: { cause: unknown }) => `can't make the VM's cgroup: ${reasonOf(facts.cause)}`,
) {}

/** The VM's supervisor and this driver have no generation of the protocol in common. */
export class SupervisorIncompatibleError extends driverError(
  "supervisor_incompatible",
  (facts: { generation: number; version: string; spoken: { readonly min: number; readonly max: number } }) => {
    const { generation, version, spoken } = facts;
    return `the VM's supervisor, of version ${JSON.stringify(version)}, speaks generation ${generation} of its protocol, this driver ${spoken.min} to ${spoken.max}: the VM is replaced`;
  },
) {}
