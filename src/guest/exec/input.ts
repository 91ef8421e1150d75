// A session's input on its way to the guest. The queue coalesces small pieces into frames as large as the guest accepts, because
// Nomad's clients send 2 KiB at a time. It is bounded: adding waits for room.

import { inputBulkPieceBytes, inputCoalesceBytes, inputCoalesceMs } from "../../system/tuning.ts";
import { maxPayloadBytes } from "./frames.ts";

export type ExecInput =
  | { readonly kind: "stdin"; readonly data: Uint8Array }
  | { readonly kind: "stdin_end" }
  | { readonly kind: "resize"; readonly rows: number; readonly columns: number };

/** The largest piece that the guest accepts in one frame. */
export const chunkBytes = maxPayloadBytes;
/** Bytes kept for a guest that does not take them. */
const highWaterBytes = 256 * 1024;

export class ExecInputQueue {
  readonly #items: ExecInput[] = [];
  #bytes = 0;
  #bulk = false;
  #closed = false;
  #wakeTaker: (() => void) | undefined;
  #wakeAdder: (() => void) | undefined;

  /** Resolves when there is room for more. */
  async add(item: ExecInput): Promise<void> {
    if (this.#closed) return;
    this.#items.push(item);
    if (item.kind === "stdin") this.#bytes += item.data.length;
    this.#wakeTaker?.();
    while (this.#bytes > highWaterBytes && !this.#closed) {
      await new Promise<void>((resolve) => {
        this.#wakeAdder = resolve;
      });
    }
  }

  /** Items in the queue can still be taken. */
  close(): void {
    this.#closed = true;
    this.#wakeTaker?.();
    this.#wakeAdder?.();
  }

  /** The next input, standard input joined to one piece of at most `chunkBytes`; undefined once closed and empty. */
  async take(): Promise<ExecInput | undefined> {
    while (this.#items.length === 0) {
      if (this.#closed) return undefined;
      await new Promise<void>((resolve) => {
        this.#wakeTaker = resolve;
      });
    }
    if (this.#bulk) await this.#coalesce();
    const first = this.#items[0];
    if (first?.kind !== "stdin") {
      this.#bulk = false;
      return this.#items.shift();
    }
    const data = this.#takeBytes();
    this.#bulk = data.length >= inputBulkPieceBytes;
    this.#wakeAdder?.();
    return { kind: "stdin", data };
  }

  async #coalesce(): Promise<void> {
    const more = (): boolean =>
      this.#bytes < inputCoalesceBytes && !this.#closed && this.#items.every(({ kind }) => kind === "stdin");
    if (!more()) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, inputCoalesceMs);
    this.#wakeTaker = () => {
      if (!more()) resolve();
    };
    await promise;
    clearTimeout(timer);
    this.#wakeTaker = undefined;
  }

  #takeBytes(): Uint8Array {
    const pieces: Uint8Array[] = [];
    let length = 0;
    let count = 0;
    for (const item of this.#items) {
      if (item.kind !== "stdin" || length === chunkBytes) break;
      const piece = item.data.subarray(0, chunkBytes - length);
      pieces.push(piece);
      length += piece.length;
      if (piece.length < item.data.length) {
        this.#items[count] = { kind: "stdin", data: item.data.subarray(piece.length) };
        break;
      }
      count += 1;
    }
    this.#items.splice(0, count);
    this.#bytes -= length;
    const [only] = pieces;
    return pieces.length === 1 && only !== undefined ? only : Buffer.concat(pieces, length);
  }
}
