// The free space of a file system: the part that must stay free for the host, and the space that is set aside for a file before it
// is written (fallocate(2), by the program of util-linux, since Node has no such call).
import { rm, statfs, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { CommandError, DiskFullError } from "./errors.ts";
import { runCommand } from "./run-command.ts";

const intervalMs = 500;

/** For processes that are not root: root's own reserve stays untouched. Fails as statfs does. */
export async function freeBytes(path: string): Promise<number> {
  const { bavail, bsize } = await statfs(path);
  return bavail * bsize;
}

export interface SpaceNeed {
  /** A directory on the file system. */
  readonly path: string;
  /** The thing that needs the space, for the message. */
  readonly what: string;
  readonly neededBytes: number;
  readonly minFreeBytes: number;
  /** Parts of the free space that others have been promised. */
  readonly promisedBytes?: number;
  /** A cure of the caller's own, for the message. */
  readonly cure?: string;
}

/** Fails with DiskFullError if less than `minFreeBytes` would be left. */
export async function requireSpace(need: SpaceNeed): Promise<void> {
  const free = (await freeBytes(need.path)) - (need.promisedBytes ?? 0);
  if (free - need.neededBytes < need.minFreeBytes) throw new DiskFullError({ ...need, freeBytes: free });
}

/**
 * Work that writes an amount which is not known before. It is aborted with DiskFullError as soon as less than `minFreeBytes` are
 * left, and fails with that then.
 */
export async function keepingSpaceFree<T>(
  need: SpaceNeed & { readonly signal: AbortSignal },
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  await requireSpace(need);
  const full = new AbortController();
  const done = new AbortController();
  const watch = async (): Promise<void> => {
    for (;;) {
      await delay(intervalMs, undefined, { signal: done.signal });
      await requireSpace({ ...need, neededBytes: 0 });
    }
  };
  void watch().catch((error: unknown) => {
    if (error instanceof DiskFullError) full.abort(error);
  });
  try {
    return await work(AbortSignal.any([need.signal, full.signal]));
  } catch (error) {
    throw full.signal.aborted ? full.signal.reason : error;
  } finally {
    done.abort();
  }
}

/** statfs(2): TMPFS_MAGIC and RAMFS_MAGIC. */
const memoryFileSystems: readonly number[] = [0x0102_1994, 0x8584_58f6];
/** btrfs and ZFS, which write changed data to other places: space that is set aside does not last. */
const copyingFileSystems: readonly number[] = [0x9123_683e, 0x2fc1_2fc1];

/** Whether the file or directory lies in memory, where space that is set aside would be memory in use. Fails as statfs does. */
export async function isInMemory(path: string): Promise<boolean> {
  return memoryFileSystems.includes((await statfs(path)).type);
}

/**
 * Sets the space of a whole file aside. Resolves with false if the file system can't do that. Fails with CommandError if there is
 * too little space.
 */
export async function reserveFile(options: {
  path: string;
  sizeBytes: number;
  signal?: AbortSignal | undefined;
}): Promise<boolean> {
  const { path, sizeBytes, signal } = options;
  try {
    await runCommand({ file: "fallocate", args: ["--length", `${sizeBytes}`, path], env: environment(), signal });
    return true;
  } catch (error) {
    const isMissing = error instanceof CommandError && error.code === "command_not_started";
    const isRefused = error instanceof CommandError && /not supported|Invalid argument/.test(error.message);
    if (isMissing || isRefused) return false;
    throw error;
  }
}

const environment = (): Record<string, string> => ({ PATH: process.env["PATH"] ?? "", LC_ALL: "C" });

/** Whether space that is set aside in this directory lasts: not on file systems that write changed data elsewhere. Never fails. */
export async function keepsReservedSpace(directory: string): Promise<boolean> {
  const path = join(directory, `.space-${process.pid}`);
  try {
    if (copyingFileSystems.includes((await statfs(directory)).type)) return false;
    await writeFile(path, "", { mode: 0o600 });
    return await reserveFile({ path, sizeBytes: 4096 });
  } catch {
    // A full disk says nothing about the file system.
    return true;
  } finally {
    await rm(path, { force: true }).catch(() => undefined);
  }
}
