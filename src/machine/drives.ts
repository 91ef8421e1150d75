// Disks of the host that a VM has beside its own. If one VM writes a disk, no other VM may have it: VMs share nothing that one of
// them can change. The VMs' records hold each disk by the identity of its file or device, since several names can lead there. The
// VM gets the opened file itself, in its own directory: the supervisor puts it there, for the VM's user (crates/shim/src/vm/drives.rs).
import { join } from "node:path";
import type { HostFile } from "../system/host-file.ts";
import type { ExtraDrive } from "../vmm/vm-options.ts";
import type { Drive } from "../vmm/vmm.ts";
import { DriveInUseError } from "./errors.ts";
import type { HostDriveRecord, MachineRecord } from "./records/manifest.ts";

/** A job's disk: its options, and the file that the driver opened for it. */
export interface HostDrive {
  readonly options: ExtraDrive;
  readonly file: HostFile;
}

/** The part of a VM's record about these disks. */
export function recordDrives(drives: readonly HostDrive[]): HostDriveRecord[] {
  return drives.map(({ options, file }) => ({
    path: file.path,
    readOnly: options.is_read_only ?? false,
    identity: file.identity,
  }));
}

/** As the VMM finds them, in the VM's directory. A device has no size here: the limit on the size of files does not apply to it. */
export function toDrives(directory: string, drives: readonly HostDrive[]): Drive[] {
  return drives.map(({ options, file }, index) => ({
    path: join(directory, `host-drive${index}`),
    readOnly: options.is_read_only ?? false,
    sizeBytes: file.kind === "file" ? Number(file.facts.size) : 0,
    id: options.drive_id,
    file,
  }));
}

/**
 * Fails with DriveInUseError if the VM and another would share a disk that one of them can write, or if the VM has a
 * disk twice.
 */
export function refuseSharedDrives(drives: readonly HostDriveRecord[], others: readonly MachineRecord[]): void {
  for (const [index, drive] of drives.entries()) {
    const isSame = (other: HostDriveRecord): boolean => other.identity === drive.identity;
    const clashes = (other: HostDriveRecord): boolean => isSame(other) && !(other.readOnly && drive.readOnly);
    if (drives.slice(0, index).some(isSame)) throw new DriveInUseError({ path: drive.path, holder: undefined });
    const holder = others.find((record) => record.drives.some(clashes));
    if (holder !== undefined) throw new DriveInUseError({ path: drive.path, holder });
  }
}
