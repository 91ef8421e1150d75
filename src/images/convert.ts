// Layers in, squashfs out: the merged tar stream goes straight into mksquashfs; nothing is unpacked on the host.
import { rm } from "node:fs/promises";
import type { CommandError } from "../system/errors.ts";
import { runCommand } from "../system/run-command.ts";
import { ConversionFailedError } from "./errors.ts";
import { ImageBudget } from "./image-budget.ts";
import { readLayer, readLayerHeaders, type StoredLayer } from "./layer.ts";
import { applyLayer } from "./merge/apply-layer.ts";
import { newDirectory } from "./merge/file-tree.ts";
import { mergedTar } from "./merge/merged-tar.ts";
import { giveRootDirectory } from "./root-owner.ts";

/** Part of every squashfs's name, so that a change of the conversion's output never meets old files. */
export const converterVersion = 2;

const converterMemoryMib = 256;
const conversionTimeoutMs = 30 * 60_000;

/** Fails with BadLayerError, ImageLimitError, DigestMismatchError or ConversionFailedError; `outputPath` does not exist then. */
export async function convertLayers(options: {
  readonly reference: string;
  /** Lowest first. */
  readonly layers: readonly StoredLayer[];
  readonly outputPath: string;
  readonly mksquashfsPath: string;
  readonly signal: AbortSignal;
}): Promise<void> {
  const { layers, outputPath, signal } = options;
  const root = newDirectory();
  const budget = new ImageBudget();
  let newestMtime = 0;
  const ownIds = [process.getuid?.(), process.getgid?.()];
  let isOwner = false;
  for (const [layerIndex, layer] of layers.entries()) {
    const headers = await readLayerHeaders(layer, budget, signal);
    newestMtime = headers.reduce((newest, { mtime }) => Math.max(newest, mtime), newestMtime);
    isOwner ||= headers.some(({ uid, gid }) => ownIds.includes(uid) || ownIds.includes(gid));
    applyLayer({ root, headers, layerIndex, budget });
  }
  const openLayer = (layerIndex: number) => {
    const layer = layers[layerIndex];
    if (layer === undefined) throw new RangeError(`there is no layer ${layerIndex}`);
    return readLayer(layer, signal);
  };
  // Our own side's error (a damaged layer) explains more than mksquashfs's broken pipe, which it causes.
  const ours: { error?: unknown } = {};
  const input = remembering(mergedTar({ root, budget, openLayer }), ours);
  try {
    await runCommand({
      file: options.mksquashfsPath,
      args: [
        ...["-", outputPath, "-tar", "-noappend", "-quiet", "-no-progress", "-noId"],
        // Else it takes a quarter of the host's memory, whatever the limit of its cgroup.
        ...["-mem", `${converterMemoryMib}M`],
        ...["-comp", "zstd", "-Xcompression-level", "3"],
        ...["-root-mode", "0755", "-root-uid", "0", "-root-gid", "0"],
      ],
      // The same image gives the same bytes: the times that mksquashfs would take from the clock become the image's newest.
      env: { PATH: process.env["PATH"] ?? "", SOURCE_DATE_EPOCH: `${newestMtime}` },
      input,
      timeoutMs: conversionTimeoutMs,
      signal,
    });
    const owner = process.getuid?.() ?? 0;
    // An image with files of the very same user keeps its root directory as it came out.
    if (owner !== 0 && !isOwner) await giveRootDirectory({ path: outputPath, owner });
  } catch (error) {
    await rm(outputPath, { force: true });
    signal.throwIfAborted();
    if (ours.error !== undefined) throw ours.error;
    throw new ConversionFailedError({ reference: options.reference, cause: error as CommandError });
  }
}

/** Remembers the source's error. An error that the reader throws in, because it ended first, is the reader's own. */
async function* remembering(
  source: AsyncIterable<Uint8Array>,
  failure: { error?: unknown },
): AsyncGenerator<Uint8Array> {
  let withReader = false;
  try {
    for await (const chunk of source) {
      withReader = true;
      yield chunk;
      withReader = false;
    }
  } catch (error) {
    if (!withReader) failure.error = error;
    throw error;
  }
}
