// A layer blob as a stream of tar entries. The first bytes give the compression (gzip, zstd or none), since media types
// in the wild are not always right. The decompressed archive is checked against its digest, the diffID.
import { createReadStream } from "node:fs";
import { pipeline, Readable, type Transform } from "node:stream";
import { createGunzip, createZstdDecompress } from "node:zlib";
import { verified } from "./digest.ts";
import { BadLayerError } from "./errors.ts";
import type { ImageBudget } from "./image-budget.ts";
import { readTar, type TarEntry } from "./tar/read-tar.ts";
import type { TarHeader } from "./tar/tar-entry.ts";

/** Node's default of 16 KiB makes gunzip nearly three times slower. */
const chunkBytes = 1 << 20;
/** A compressed layer may claim any size; a larger one counts as an attack. */
const maxUnpackedBytes = 256 * 2 ** 30;

export interface StoredLayer {
  readonly blobPath: string;
  readonly digest: string;
  readonly diffId: string;
}

/** The headers of all entries, in order. Fails as `readLayer` does, and with ImageLimitError. */
export async function readLayerHeaders(
  layer: StoredLayer,
  budget: ImageBudget,
  signal?: AbortSignal,
): Promise<TarHeader[]> {
  const headers: TarHeader[] = [];
  budget.beginLayer(layer.digest);
  for await (const { header } of readLayer(layer, signal)) {
    budget.addEntry(header);
    headers.push(header);
  }
  return headers;
}

/** Fails with BadLayerError, and with DigestMismatchError at the end. */
export async function* readLayer(layer: StoredLayer, signal?: AbortSignal): AsyncGenerator<TarEntry> {
  try {
    const source = limited(decompressed(layer.blobPath, signal));
    const what = `layer ${layer.digest}, unpacked,`;
    yield* readTar(verified({ source, what, digest: layer.diffId }));
  } catch (error) {
    throw withLayer(error, layer.digest);
  }
}

async function* decompressed(path: string, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
  const file = createReadStream(path, { highWaterMark: chunkBytes, signal });
  try {
    const chunks = file.iterator({ destroyOnReturn: false });
    const first: unknown = (await chunks.next()).value;
    if (!Buffer.isBuffer(first)) return;
    const rest = Readable.from(startingWith(first, chunks), { objectMode: false });
    const decoder = decoderFor(first);
    if (decoder === undefined) {
      yield* rest;
      return;
    }
    // Errors of either side come out of the decoder, which is the one that is read.
    pipeline(rest, decoder, () => undefined);
    yield* decoder;
  } finally {
    file.destroy();
  }
}

async function* startingWith(first: Buffer, rest: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  yield first;
  yield* rest;
}

function decoderFor(start: Buffer): Transform | undefined {
  const magic = start.toString("hex", 0, 4);
  if (magic.startsWith("1f8b")) return createGunzip({ chunkSize: chunkBytes });
  // A zstd frame, or one of the sixteen skippable ones that zstd:chunked begins with.
  if (magic === "28b52ffd" || /^5.2a4d18$/.test(magic)) return createZstdDecompress({ chunkSize: chunkBytes });
  return undefined;
}

async function* limited(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let sizeBytes = 0;
  for await (const chunk of source) {
    sizeBytes += chunk.length;
    if (sizeBytes > maxUnpackedBytes) {
      throw new BadLayerError({ problem: `it unpacks to more than ${maxUnpackedBytes / 2 ** 30} GiB` });
    }
    yield chunk;
  }
}

function withLayer(error: unknown, layer: string): unknown {
  if (error instanceof BadLayerError) return new BadLayerError({ layer, problem: error.problem, cause: error });
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  if (/^(?:Z|ZSTD)_/.test(code)) {
    return new BadLayerError({ layer, problem: "its compressed data is damaged or truncated", cause: error });
  }
  return error;
}
