// The native programs inside the single executable (Node SEA assets), or beside the sources in an unpackaged run.
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { getAsset, isSea } from "node:sea";
import { ensureContent } from "./files.ts";

export type AssetName = "litegix-init" | "litegix-shim" | "vhost-device-vsock";

/** The folder of unpackaged runs, relative to this file; `make build` fills it. */
const developmentDirectory = (): string => join(import.meta.dirname, "../../dist/assets");

export async function readAsset(name: AssetName): Promise<Buffer> {
  if (isSea()) return Buffer.from(getAsset(name));
  return await readFile(join(developmentDirectory(), name));
}

/**
 * Writes the program below `directory` unless it is there, byte for byte, and returns its path. The name holds the program's hash, so an upgrade never
 * touches a file that a running VM's supervisor executes.
 */
export async function installAsset(options: { name: AssetName; directory: string }): Promise<string> {
  const content = await readAsset(options.name);
  const hash = createHash("sha256").update(content).digest("hex").slice(0, 16);
  const path = join(options.directory, `${options.name}-${hash}`);
  await ensureContent({ path, content, mode: 0o755 });
  return path;
}

/** The files that this same program consists of, when a process with a root of its own runs it. */
export function selfFiles(): string[] {
  return isSea() ? [process.execPath] : [process.execPath, join(import.meta.dirname, "../..")];
}

/** The command that starts this same program again: the single executable, or node with the main module. */
export function selfCommand(): [string, ...string[]] {
  return isSea() ? [process.execPath] : [process.execPath, join(import.meta.dirname, "../main.ts")];
}
