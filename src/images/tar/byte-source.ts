// Reads exact amounts from a stream of chunks of any size; copies only where a piece crosses two chunks.
import { BadLayerError } from "../errors.ts";

export class ByteSource {
  readonly #iterator: AsyncIterator<Uint8Array>;
  #chunk: Buffer = Buffer.alloc(0);
  #offset = 0;

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#iterator = source[Symbol.asyncIterator]();
  }

  /**
   * Exactly `sizeBytes`, valid until the next call that reads; undefined if the stream ends before the first byte. Fails
   * with BadLayerError if it ends later.
   */
  async read(sizeBytes: number): Promise<Buffer | undefined> {
    if (this.#chunk.length - this.#offset >= sizeBytes) {
      this.#offset += sizeBytes;
      return this.#chunk.subarray(this.#offset - sizeBytes, this.#offset);
    }
    const pieces: Buffer[] = [];
    let missing = sizeBytes;
    while (missing > 0) {
      const piece = await this.some(missing);
      if (piece === undefined) {
        if (missing === sizeBytes) return undefined;
        throw truncated();
      }
      pieces.push(piece);
      missing -= piece.length;
    }
    return Buffer.concat(pieces);
  }

  /** 1 to `maxBytes` bytes without copying; undefined at the end. */
  async some(maxBytes: number): Promise<Buffer | undefined> {
    while (this.#offset === this.#chunk.length) {
      const next = await this.#iterator.next();
      if (next.done === true) return undefined;
      this.#chunk = Buffer.from(next.value.buffer, next.value.byteOffset, next.value.byteLength);
      this.#offset = 0;
    }
    const start = this.#offset;
    this.#offset = Math.min(this.#chunk.length, start + maxBytes);
    return this.#chunk.subarray(start, this.#offset);
  }

  /** Fails with BadLayerError if the stream ends before. */
  async skip(sizeBytes: number): Promise<void> {
    if ((await this.skipUpTo(sizeBytes)) < sizeBytes) throw truncated();
  }

  /** The same for a stream that may end; the number of bytes that it still had. */
  async skipUpTo(sizeBytes: number): Promise<number> {
    let missing = sizeBytes;
    while (missing > 0) {
      const piece = await this.some(missing);
      if (piece === undefined) break;
      missing -= piece.length;
    }
    return sizeBytes - missing;
  }

  /** Reads to the end, so that digests computed on the way cover everything. */
  async drain(): Promise<void> {
    while ((await this.some(Number.MAX_SAFE_INTEGER)) !== undefined) {
      // Nothing after the archive's end is of interest.
    }
  }

  async close(): Promise<void> {
    await this.#iterator.return?.();
  }
}

export function truncated(): BadLayerError {
  return new BadLayerError({ problem: "the archive is truncated" });
}
