// Reads a socket on demand, so that a slow consumer holds up the sender. Once the sender is about to go for good, the rest is
// fetched at once and kept for the consumer.
import type { Socket } from "node:net";

/** An item's approximate overhead. A hostile sender sends the smallest items. */
const itemBytes = 128;

/** Yields all items that came before an error, then fails with the socket's or the parser's error. The caller destroys the socket. */
export async function* readAhead<Item>(options: {
  socket: Socket;
  /** Called with each chunk when it is fetched. */
  parse: (chunk: Uint8Array) => Iterable<Item>;
  /** Aborts when the sender's end is near. */
  ending: AbortSignal;
  /** The limit of what is held from then on; one chunk may exceed it. */
  maxBytes: number;
}): AsyncGenerator<Item, void, undefined> {
  const { socket, parse, ending, maxBytes } = options;
  const held: { items: readonly Item[]; bytes: number }[] = [];
  let heldBytes = 0;
  let over = socket.destroyed;
  let failure: unknown;
  let wake = (): void => {};
  const fetch = (): void => {
    while (!over && heldBytes < (ending.aborted ? maxBytes : 1)) {
      const chunk = socket.read() as Uint8Array | null;
      if (chunk === null) break;
      try {
        const items = [...parse(chunk)];
        const bytes = chunk.length + items.length * itemBytes;
        held.push({ items, bytes });
        heldBytes += bytes;
      } catch (error) {
        close(error);
      }
    }
    wake();
  };
  const close = (error?: unknown): void => {
    failure ??= error;
    over = true;
    wake();
  };
  const closed = (): void => close();
  socket.on("readable", fetch).once("error", close).once("end", closed).once("close", closed);
  ending.addEventListener("abort", fetch);
  try {
    for (;;) {
      fetch();
      const next = held.shift();
      if (next !== undefined) {
        yield* next.items;
        heldBytes -= next.bytes;
        continue;
      }
      if (failure !== undefined) throw failure;
      if (over) return;
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  } finally {
    ending.removeEventListener("abort", fetch);
    socket.off("readable", fetch).off("error", close).off("end", closed).off("close", closed);
  }
}
