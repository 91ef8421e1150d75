// The writable layer of a VM: an empty ext4. It has no journal, since it never outlives its VM. Making one takes a good part of a
// VM's boot time. So the driver always keeps one ready, and a VM's start only renames it.
//
// A disk's space is its VM's from the start: the file system reserves it (fallocate), so a VM goes on writing up to its disk's size
// when others have filled the file system. ext4 and XFS do that without writing the blocks. If a file system does not, the disk is
// sparse, and the driver counts the part that is not yet allocated as promised.
import { randomBytes } from "node:crypto";
import { statSync } from "node:fs";
import { mkdir, open, readdir, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { freeBytes, isInMemory, requireSpace, reserveFile } from "../../system/disk-space.ts";
import { DiskFullError } from "../../system/errors.ts";
import { runCommand } from "../../system/run-command.ts";
import { ScratchDiskError } from "../errors.ts";
import { machineFiles } from "../records/files.ts";

const mib = 1024 * 1024;

interface DiskOptions {
  readonly path: string;
  readonly sizeMib: number;
  readonly signal?: AbortSignal | undefined;
}

interface SpareOptions {
  readonly spareDirectory: string;
  readonly sizeMib: number;
}

/** The VMs that have promised space, and the space that must stay free beside. */
export interface DiskBudget {
  /** All VMs' directories, with the new VM's. */
  readonly machines: readonly string[];
  readonly minFreeMib: number;
}

/**
 * Takes a disk's space, in the turn in which the VM is registered: a spare disk, or an empty file, is there afterwards. Resolves
 * with whether the disk is formatted already. Fails with DiskFullError or ScratchDiskError.
 */
export async function claimScratchDisk(options: DiskOptions & SpareOptions & DiskBudget): Promise<boolean> {
  const { path, spareDirectory } = options;
  const taken = await takeSpare(options);
  if (!taken) await makeEmptyFile(options);
  try {
    await requireScratchSpace(options);
  } catch (error) {
    if (!(error instanceof DiskFullError)) throw new ScratchDiskError({ path, cause: error });
    // Spares are for speed only.
    if ((await allSpares(spareDirectory)).length === 0) throw error;
    await removeSpareScratchDisks({ spareDirectory });
    await requireScratchSpace(options);
  }
  return taken;
}

/** Formats a disk that `claimScratchDisk` left empty. Fails with ScratchDiskError. */
export async function formatScratchDisk(options: DiskOptions): Promise<void> {
  const { path, sizeMib, signal } = options;
  try {
    if (!(await isInMemory(path))) await reserveFile({ path, sizeBytes: sizeMib * mib, signal });
    await runCommand({
      file: "mkfs.ext4",
      args: [
        ...["-q", "-F", "-m", "0"],
        ...["-O", "^has_journal,^resize_inode"],
        // Discarding would give the reserved space back.
        ...["-E", "lazy_itable_init=1,nodiscard"],
        path,
      ],
      signal,
    });
  } catch (error) {
    throw new ScratchDiskError({ path, cause: error });
  }
}

/**
 * Makes sure that the next VM finds a spare disk of the size, if there is room for it. Never fails: without a spare that VM starts
 * some milliseconds later.
 */
export async function keepSpareScratchDisk(options: SpareOptions & DiskBudget): Promise<void> {
  const { spareDirectory, sizeMib, minFreeMib } = options;
  const name = randomBytes(8).toString("hex");
  const unfinished = join(spareDirectory, `unfinished-${name}`);
  try {
    await mkdir(spareDirectory, { recursive: true, mode: 0o700 });
    const free = (await freeBytes(spareDirectory)) - promisedBytes(options.machines);
    if (free < minFreeMib * mib) await removeSpareScratchDisks(options);
    if (free < (minFreeMib + sizeMib) * mib || (await spares(options)).length > 0) return;
    await makeEmptyFile({ path: unfinished, sizeMib });
    await formatScratchDisk({ path: unfinished, sizeMib });
    await rename(unfinished, join(spareDirectory, `${sizeMib}-${name}`));
  } catch {
    await rm(unfinished, { force: true });
  }
}

/** Removes every spare: an earlier process's may be of another size or half made. */
export async function removeSpareScratchDisks(options: { spareDirectory: string }): Promise<void> {
  await rm(options.spareDirectory, { recursive: true, force: true });
}

/** The bytes that these VMs' disks may yet take of their file system. */
export function promisedBytes(machines: readonly string[]): number {
  // Without the thread pool: it takes 20 times as long as the kernel, and each start waits for all VMs' disks here.
  return machines.reduce((sum, directory) => {
    const facts = statSync(machineFiles(directory).scratchDisk, { throwIfNoEntry: false });
    return facts === undefined ? sum : sum + Math.max(facts.size - facts.blocks * 512, 0);
  }, 0);
}

async function requireScratchSpace(options: DiskOptions & DiskBudget): Promise<void> {
  const { path, sizeMib, machines, minFreeMib } = options;
  const own = dirname(path);
  const others = machines.filter((directory) => directory !== own);
  await requireSpace({
    path: dirname(own),
    what: `the task's writable disk of ${sizeMib} MiB`,
    neededBytes: promisedBytes([own]),
    promisedBytes: promisedBytes(others),
    minFreeBytes: minFreeMib * mib,
    cure: "stop tasks on this node, or ask for a smaller disk with storage_opt",
  });
}

async function allSpares(spareDirectory: string): Promise<string[]> {
  return await readdir(spareDirectory).catch(() => [] as string[]);
}

async function spares(options: SpareOptions): Promise<string[]> {
  return (await allSpares(options.spareDirectory)).filter((name) => name.startsWith(`${options.sizeMib}-`));
}

/** Renaming is atomic: of two VMs that want the same spare, one gets it and the other the next. */
async function takeSpare(options: DiskOptions & SpareOptions): Promise<boolean> {
  for (const name of await spares(options)) {
    try {
      await rename(join(options.spareDirectory, name), options.path);
      return true;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      // Another VM took it, or the VM's directory lies on another file system.
      if (code !== "ENOENT" && code !== "EXDEV") throw new ScratchDiskError({ path: options.path, cause: error });
    }
  }
  return false;
}

async function makeEmptyFile({ path, sizeMib }: DiskOptions): Promise<void> {
  try {
    await using file = await open(path, "wx", 0o600);
    await file.truncate(sizeMib * mib);
  } catch (error) {
    throw new ScratchDiskError({ path, cause: error });
  }
}
