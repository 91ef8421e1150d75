// Decompression that Node lacks, by programs: xz by the host's, which every distribution that ships xz'd kernels has.
// The supervisor's program decompresses LZ4's legacy frame, which Linux' build writes for CONFIG_KERNEL_LZ4 (Debian's
// kernels).
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runCommand } from "../system/run-command.ts";

/** First word of the frame, little-endian. */
export const lz4LegacyMagic = 0x184c2102;

/** Decompresses xz data by the host's `xz`. Fails with CommandError. */
export async function decompressXz(content: Uint8Array, signal?: AbortSignal): Promise<Buffer> {
  return await byProgram(async (path) => {
    await writeFile(`${path}.xz`, content);
    await runCommand({ file: "xz", args: ["--decompress", `${path}.xz`], signal });
  });
}

export interface DecompressLz4Options {
  /** A legacy frame without anything behind it. */
  readonly frame: Uint8Array;
  /** The decompressed size: the program writes no more, and fails on less. */
  readonly sizeBytes: number;
  readonly shimPath: string;
  readonly signal?: AbortSignal | undefined;
}

/** Decompresses LZ4's legacy frame by the supervisor's program (crates/shim/src/unlz4.rs). Fails with CommandError. */
export async function decompressLz4(options: DecompressLz4Options): Promise<Buffer> {
  const { frame, sizeBytes, shimPath, signal } = options;
  return await byProgram(async (path) => {
    await runCommand({ file: shimPath, args: ["unlz4", String(sizeBytes), path], input: frame, signal });
  });
}

/** Returns the file that the program writes at the path. */
async function byProgram(run: (path: string) => Promise<void>): Promise<Buffer> {
  const directory = await mkdtemp(join(tmpdir(), "litegix-decompress-"));
  try {
    const path = join(directory, "data");
    await run(path);
    return await readFile(path);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
