// The writable layer of a VM: an empty, sparse ext4. It has no journal, since it never outlives its VM. Making one
// takes a good part of a VM's boot time. So the driver always keeps one ready, and a VM's start only renames it.
import { randomBytes } from "node:crypto";
import { mkdir, open, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { runCommand } from "../../system/run-command.ts";
import { ScratchDiskError } from "../errors.ts";

interface DiskOptions {
  readonly path: string;
  readonly sizeMib: number;
  readonly signal?: AbortSignal | undefined;
}

/** A disk of our own at `path`: a spare one if there is one of the size. Fails with ScratchDiskError. */
export async function createScratchDisk(options: DiskOptions & { spareDirectory: string }): Promise<void> {
  if (await takeSpare(options)) return;
  await makeScratchDisk(options);
}

/** Makes sure that the next VM finds a spare disk of the size. Never fails: without a spare that VM starts some milliseconds later. */
export async function keepSpareScratchDisk(options: { spareDirectory: string; sizeMib: number }): Promise<void> {
  const { spareDirectory, sizeMib } = options;
  const name = randomBytes(8).toString("hex");
  const unfinished = join(spareDirectory, `unfinished-${name}`);
  try {
    await mkdir(spareDirectory, { recursive: true, mode: 0o700 });
    if ((await spares(options)).length > 0) return;
    await makeScratchDisk({ path: unfinished, sizeMib });
    await rename(unfinished, join(spareDirectory, `${sizeMib}-${name}`));
  } catch {
    await rm(unfinished, { force: true });
  }
}

/** Removes every spare: an earlier process's may be of another size or half made. */
export async function removeSpareScratchDisks(options: { spareDirectory: string }): Promise<void> {
  await rm(options.spareDirectory, { recursive: true, force: true });
}

async function spares(options: { spareDirectory: string; sizeMib: number }): Promise<string[]> {
  const names = await readdir(options.spareDirectory).catch(() => [] as string[]);
  return names.filter((name) => name.startsWith(`${options.sizeMib}-`));
}

/** Renaming is atomic: of two VMs that want the same spare, one gets it and the other the next. */
async function takeSpare(options: DiskOptions & { spareDirectory: string }): Promise<boolean> {
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

async function makeScratchDisk(options: DiskOptions): Promise<void> {
  try {
    const file = await open(options.path, "wx", 0o600);
    try {
      await file.truncate(options.sizeMib * 1024 * 1024);
    } finally {
      await file.close();
    }
    await runCommand({
      file: "mkfs.ext4",
      args: [
        "-q",
        "-F",
        "-m",
        "0",
        "-O",
        "^has_journal,^resize_inode",
        "-E",
        "lazy_itable_init=1,nodiscard",
        options.path,
      ],
      signal: options.signal,
    });
  } catch (error) {
    throw new ScratchDiskError({ path: options.path, cause: error });
  }
}
