import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { FrameKind, StdinTakenSchema } from "../../gen/litegix/guest/v1/guest_pb.js";
import { execByBulk } from "./bulk.ts";
import { hostFrame, hostMessage } from "./frames.ts";
import { ExecInputQueue } from "./input.ts";

it("a guest that claims to have taken everything and reads nothing makes the driver hold little", async () => {
  const directory = await mkdtemp(join(tmpdir(), "bulk-"));
  const path = join(directory, "socket");
  const accepted = Promise.withResolvers<Socket>();
  const server = createServer({ pauseOnConnect: true }, accepted.resolve).listen(path);
  const stop = new AbortController();
  const input = new ExecInputQueue();
  try {
    const socket = connect(path);
    const guest = await accepted.promise;
    for (const part of hostMessage(FrameKind.TAKEN, StdinTakenSchema, { bytes: 1n << 50n })) guest.write(part);
    const session = execByBulk({
      socket,
      argv: ["cat"],
      terminal: false,
      input,
      ending: new AbortController().signal,
      onDrained: () => {},
      signal: stop.signal,
    });
    const ended = session.next().catch(() => undefined);
    let put = 0;
    let most = 0;
    const feed = (async () => {
      for (; put < 64 << 20 && !stop.signal.aborted; put += 65_000) {
        await input.add({ kind: "stdin", data: Buffer.alloc(65_000) });
        most = Math.max(most, socket.writableLength);
      }
    })();
    await Promise.race([feed, delay(1_500)]);
    assert.ok(put < 32 << 20, `${put} bytes were taken from the client`);
    assert.ok(most < 1 << 20, `${most} bytes were held`);
    guest.destroy();
    stop.abort();
    await ended;
  } finally {
    stop.abort();
    input.close();
    server.close();
    await rm(directory, { recursive: true });
  }
});

it("a connection that breaks off counts as drained, even if the client takes nothing more", {
  timeout: 10_000,
}, async () => {
  const directory = await mkdtemp(join(tmpdir(), "bulk-"));
  const path = join(directory, "socket");
  const accepted = Promise.withResolvers<Socket>();
  const server = createServer(accepted.resolve).listen(path);
  const [ending, stop] = [new AbortController(), new AbortController()];
  const input = new ExecInputQueue();
  try {
    const socket = connect(path);
    const guest = await accepted.promise;
    const fetched = Promise.withResolvers<void>();
    const { signal } = stop;
    const session = execByBulk({
      socket,
      argv: ["cat"],
      terminal: false,
      input,
      ending: ending.signal,
      onDrained: fetched.resolve,
      signal,
    });
    guest.on("error", () => {});
    for (const part of hostFrame(FrameKind.STDOUT, Buffer.from("a"))) guest.write(part);
    assert.equal((await session.next()).value?.kind, "stdout");
    ending.abort();
    guest.destroy();
    await fetched.promise;
    await session.return();
  } finally {
    stop.abort();
    input.close();
    server.close();
    await rm(directory, { recursive: true });
  }
});
