// Files: a test for existence, and writing a file so that no reader sees half of it.
import { randomBytes } from "node:crypto";
import { open, rename, rm, stat } from "node:fs/promises";

/** False also for a path that this process has no permission to see. */
export async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined)) !== undefined;
}

export interface AtomicWriteOptions {
  readonly path: string;
  readonly content: string | Uint8Array | AsyncIterable<Uint8Array>;
  /** On the same file system as `path`; by default beside it. */
  readonly temporaryPath?: string | undefined;
  /** 0o600 by default. */
  readonly mode?: number | undefined;
  /** Also force the content to the disk before the rename. */
  readonly durable?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Writes under a temporary name, then renames. */
export async function writeFileAtomically(options: AtomicWriteOptions): Promise<void> {
  const { path, content, signal } = options;
  const temporary = options.temporaryPath ?? `${path}.${randomBytes(4).toString("hex")}.tmp`;
  try {
    const file = await open(temporary, "wx", options.mode ?? 0o600);
    try {
      await file.writeFile(content, { signal });
      if (options.durable === true) await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}
