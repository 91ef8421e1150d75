// The disks of the host that a VM has beside its own, as its VMM finds them: each is put in the place of an empty file, in the
// VMM's own mount namespace (crates/shim/src/vm/drives.rs).
import { writeFile } from "node:fs/promises";
import type { DriveMount, VmConfig } from "./vmm.ts";

/** For a VMM without a jail, which finds them in the VM's directory. */
export function driveMounts({ drives, user }: VmConfig): DriveMount[] {
  return drives.flatMap(({ file, path: target, readOnly }) =>
    file === undefined ? [] : { file, target, readOnly, user },
  );
}

/** Makes the empty files. */
export async function makeDrivePlaces(mounts: readonly DriveMount[]): Promise<void> {
  for (const { target } of mounts) await writeFile(target, "", { flag: "wx", mode: 0o600 });
}
