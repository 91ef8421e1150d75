import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { readAhead } from "./read-ahead.ts";

const maxBytes = 4 << 20;

describe("a socket whose reader is slow", () => {
  let directory: string;
  let socket: Socket;
  let sender: Socket;
  let ending: AbortController;
  let chunks: AsyncGenerator<Uint8Array, void, undefined>;

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), "ahead-"));
    const path = join(directory, "socket");
    const accepted = Promise.withResolvers<Socket>();
    const server = createServer(accepted.resolve).listen(path);
    socket = connect(path);
    sender = await accepted.promise;
    sender.on("error", () => {});
    server.close();
    ending = new AbortController();
    chunks = readAhead({ socket, parse: (chunk) => [chunk], ending: ending.signal, maxBytes });
  });

  afterEach(async () => {
    socket.destroy();
    sender.destroy();
    await rm(directory, { recursive: true });
  });

  /** Writes, and waits until the kernel has all. */
  const write = (bytes: number): Promise<void> =>
    new Promise((resolve) => {
      sender.write(Buffer.alloc(bytes, "x"), () => resolve());
    });

  async function rest(): Promise<number> {
    let bytes = 0;
    for await (const chunk of chunks) bytes += chunk.length;
    return bytes;
  }

  /** Resolves when the event loop has done everything that it can do now. */
  const aWhile = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 200));

  it("holds up the sender until the sender's end is near, then loses nothing that the sender had", async () => {
    await write(1000);
    const first = (await chunks.next()).value?.length ?? 0;
    let sent = false;
    const written = write(3_000_000).then(() => {
      sent = true;
    });
    await aWhile();
    assert.equal(sent, false);
    ending.abort();
    // The consumer asks for nothing meanwhile.
    await written;
    sender.destroy();
    assert.equal(first + (await rest()), 3_001_000);
  });

  it("holds a bounded amount", async () => {
    ending.abort();
    await write(1);
    const first = (await chunks.next()).value?.length ?? 0;
    let sent = 0;
    const writing = (async () => {
      for (; sent < 20; sent++) await write(1 << 20);
      sender.end();
    })();
    while (sent < 3) await new Promise(setImmediate);
    await aWhile();
    assert.ok(sent <= 6, `${sent} MiB`);
    const all = await rest();
    await writing;
    assert.equal(first + all, 1 + (20 << 20));
  });

  it("ends when the sender breaks off, after all that it sent", async () => {
    ending.abort();
    await write(1000);
    sender.destroy();
    assert.equal(await rest(), 1000);
  });

  it("fails with the socket's error", async () => {
    const failed = rest();
    socket.destroy(new Error("broken"));
    await assert.rejects(failed, /broken/);
  });

  it("fails with the parser's error, after all that came before it", async () => {
    await write(1000);
    const parse = function* (chunk: Uint8Array): Generator<number> {
      if (chunk.includes(33)) throw new Error("no such frame");
      yield chunk.length;
    };
    const items = readAhead({ socket, parse, ending: ending.signal, maxBytes });
    const first = await items.next();
    assert.equal(first.value, 1000);
    sender.write("!");
    await assert.rejects(items.next(), /no such frame/);
  });

  it("ends when the socket was destroyed before", async () => {
    socket.destroy();
    assert.equal(await rest(), 0);
  });
});
