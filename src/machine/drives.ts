// Disks of the host that a VM has beside its own. If one VM writes a disk, no other VM may have it: VMs share nothing that one of
// them can change. The VMs' records hold each disk by the identity of its file or device, since several names can lead there. A
// jailed VMM's user owns the disks that it writes, for as long as the VM lives.
import { constants, type Stats } from "node:fs";
import { type FileHandle, open, stat } from "node:fs/promises";
import type { ExtraDrive } from "../vmm/vm-options.ts";
import type { Drive } from "../vmm/vmm.ts";
import { DriveInUseError } from "./errors.ts";
import type { HostDriveRecord, MachineRecord } from "./records/manifest.ts";
import type { UserRange } from "./users.ts";

/**
 * The part of a VM's record about these disks. If a file still belongs to a VM's user, root counts as its owner. Fails as stat
 * does.
 */
export async function inspectDrives(drives: readonly ExtraDrive[], users: UserRange): Promise<HostDriveRecord[]> {
  return await Promise.all(
    drives.map(async ({ path_on_host: path, is_read_only: readOnly = false }) => {
      const facts = await stat(path);
      const isVmUsers = facts.uid >= users.first && facts.uid <= users.last;
      const owner = isVmUsers ? { uid: 0, gid: 0 } : { uid: facts.uid, gid: facts.gid };
      return { path, readOnly, identity: identityOf(facts), sizeBytes: facts.isFile() ? facts.size : 0, owner };
    }),
  );
}

function identityOf(facts: Stats): string {
  return facts.isBlockDevice() ? `device ${facts.rdev}` : `file ${facts.dev}:${facts.ino}`;
}

/** A device has no size here: the limit on the size of files does not apply to it. */
export function toDrives(drives: readonly HostDriveRecord[]): Drive[] {
  return drives.map(({ path, readOnly, sizeBytes }) => ({ path, readOnly, sizeBytes }));
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

/** Gives the disks that the VM's user owns back to their former owners. Safe to repeat. Fails as chown does. */
export async function giveDrivesBack(record: MachineRecord): Promise<void> {
  const { user, drives } = record;
  if (user === undefined) return;
  for (const { path, readOnly, identity, owner } of drives) {
    if (readOnly) continue;
    await using file = await openIfThere(path);
    const facts = await file?.stat();
    // Another file has taken its place, or somebody else has given it away.
    if (facts === undefined || identityOf(facts) !== identity || facts.uid !== user.uid) continue;
    await file?.chown(owner.uid, owner.gid);
  }
}

async function openIfThere(path: string): Promise<FileHandle | undefined> {
  try {
    return await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR" || code === "ELOOP" || code === "ENXIO") return undefined;
    throw error;
  }
}
