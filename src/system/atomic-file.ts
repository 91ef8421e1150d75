// Files that others read are never seen half-written: temporary name beside the target, then rename.
import { randomBytes } from "node:crypto";
import { open, rename, rm } from "node:fs/promises";

export interface AtomicWriteOptions {
  readonly path: string;
  readonly content: string | Uint8Array;
  readonly mode?: number;
  /** Also force the content to the disk before the rename. */
  readonly durable?: boolean;
}

export async function writeFileAtomically(options: AtomicWriteOptions): Promise<void> {
  const temporary = `${options.path}.${randomBytes(4).toString("hex")}.tmp`;
  try {
    const file = await open(temporary, "wx", options.mode ?? 0o600);
    try {
      await file.writeFile(options.content);
      if (options.durable === true) await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, options.path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}
