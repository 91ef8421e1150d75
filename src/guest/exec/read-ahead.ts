// What a socket brings, read as it is asked for, so that who takes it slowly holds up who sends it; until the sender is about to go
// for good, from when on it is fetched and kept for whom it is meant.
import type { Socket } from "node:net";

/** What an item takes beside its bytes, about: a sender who means ill sends the smallest. */
const itemBytes = 128;

/** Fails with the socket's error or the parser's, after all that came before it. The caller destroys the socket. */
export async function* readAhead<Item>(options: {
  socket: Socket;
  /** Called with each chunk when it is fetched. */
  parse: (chunk: Uint8Array) => Iterable<Item>;
  /** Aborts when the sender's end is near. */
  ending: AbortSignal;
  /** Held at most from then on, and a chunk more. */
  mostBytes: number;
}): AsyncGenerator<Item, void, undefined> {
  const { socket, parse, ending, mostBytes } = options;
  const held: { items: readonly Item[]; bytes: number }[] = [];
  let heldBytes = 0;
  let over = socket.destroyed;
  let failure: unknown;
  let wake = (): void => {};
  const fetch = (): void => {
    while (!over && heldBytes < (ending.aborted ? mostBytes : 1)) {
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
