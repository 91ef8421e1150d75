// Chooses the user of a jailed VM: a number of a range that no other VM of this base path has. The VMs' records hold the numbers
// in use, so that they stay taken across restarts of the driver. A number is free again when its VM's directory is gone.
import { NoFreeUserError } from "./errors.ts";
import type { MachineRecord } from "./records/manifest.ts";

/** Both ends of the range belong to it. */
export interface UserRange {
  readonly first: number;
  readonly last: number;
}

/** A number that none of the VMs has. Fails with NoFreeUserError. */
export function freeUser(range: UserRange, records: readonly MachineRecord[]): number {
  const taken = new Set(records.map((record) => record.user?.uid));
  for (let uid = range.first; uid <= range.last; uid++) if (!taken.has(uid)) return uid;
  throw new NoFreeUserError(range);
}
