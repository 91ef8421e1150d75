// Waits on Node's streams.
import type { Writable } from "node:stream";

/** Resolves when the stream accepts more data, or never will because it is destroyed. Never rejects. */
export function drained(stream: Writable): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      stream.off("drain", done).off("close", done);
      resolve();
    };
    stream.on("drain", done).on("close", done);
    if (stream.destroyed) done();
  });
}
