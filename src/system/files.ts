// Files: a test for existence, and writing a file so that no reader sees half of it, or only if it is not there as it should be.
import { randomBytes } from "node:crypto";
import { mkdir, open, readFile, rename, rm, stat } from "node:fs/promises";
import { dirname } from "node:path";

/** False also for a path that this process has no permission to see. */
export async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined)) !== undefined;
}

/** Files whose content this process has compared or written, with the state in which they were. */
const verified = new Map<string, string>();

/**
 * Makes sure that the file has this content, which its name stands for: each content has a path of its own. It compares the bytes
 * the first time, and again whenever the file was changed. Files of some megabytes take some milliseconds.
 */
export async function ensureContent(options: { path: string; content: Uint8Array; mode: number }): Promise<void> {
  const { path, content, mode } = options;
  const stateNow = async (): Promise<string | undefined> => {
    const facts = await stat(path, { bigint: true }).catch(() => undefined);
    return facts && [facts.dev, facts.ino, facts.size, facts.mtimeNs, facts.ctimeNs].join(" ");
  };
  const state = await stateNow();
  if (state !== undefined && verified.get(path) === state) return;
  const existing = state === undefined ? undefined : await readFile(path).catch(() => undefined);
  if (existing?.equals(content) !== true) {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    await writeFileAtomically({ path, content, mode, durable: true });
  }
  const after = await stateNow();
  if (after !== undefined) verified.set(path, after);
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
