// The disks of the host that a VM has beside its own, as its VMM finds them: each is put in the place of an empty file, in the
// VMM's own mount namespace (crates/shim/src/vm/drives.rs).
import { writeFile } from "node:fs/promises";
import type { DriveMount, VmConfig, VmUser } from "./vmm.ts";

/**
 * In the VM's directory. A VMM that opens them by their paths must be able to do so as `user`; default: root, also for one that
 * then gets them as descriptors.
 */
export function driveMounts({ drives }: VmConfig, user?: VmUser): DriveMount[] {
  return drives.flatMap(({ file, path: target, readOnly }) =>
    file === undefined ? [] : { file, target, readOnly, user },
  );
}

/** Makes the empty files. */
export async function makeDrivePlaces(mounts: readonly DriveMount[]): Promise<void> {
  for (const { target } of mounts) await writeFile(target, "", { flag: "wx", mode: 0o600 });
}
