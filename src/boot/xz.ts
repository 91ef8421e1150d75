// xz has no decoder in Node and no kept-up one on npm; the xz program is on every distribution that ships xz'd kernels.
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runCommand } from "../system/run-command.ts";

/** Decompresses xz data by the host's `xz`; fails with runCommand's error when there is none. */
export async function decompressXz(content: Uint8Array, signal?: AbortSignal): Promise<Buffer> {
  const directory = await mkdtemp(join(tmpdir(), "litegix-xz-"));
  try {
    await writeFile(join(directory, "data.xz"), content);
    await runCommand({ file: "xz", args: ["--decompress", join(directory, "data.xz")], signal });
    return await readFile(join(directory, "data"));
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
