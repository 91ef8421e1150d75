import assert from "node:assert/strict";
import { createServer, type Socket } from "node:net";
import { test } from "node:test";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { bulkSession } from "../../../test/fakes/bulk-session.ts";
import { connectedGuest, socketPath } from "../../../test/fakes/connected-guest.ts";
import {
  ExecStartSchema,
  ExitStatusSchema,
  FrameKind,
  RefusalSchema,
  StdinTakenSchema,
  TerminalSizeSchema,
} from "../../gen/litegix/guest/v1/guest_pb.js";
import { GuestClient } from "../client.ts";
import { GuestRefusedError } from "../errors.ts";
import { maxPayloadBytes, stdinWindowBytes } from "./frames.ts";
import type { ExecInput } from "./input.ts";
import { type ExecOutput, execInGuest } from "./session.ts";

async function* inputs(...values: ExecInput[]): AsyncGenerator<ExecInput> {
  yield* values;
}

async function collect(output: AsyncIterable<ExecOutput>): Promise<string[]> {
  const seen: string[] = [];
  for await (const event of output) {
    seen.push(
      event.kind === "exited" ? `exit ${event.exitCode}` : `${event.kind} ${Buffer.from(event.data).toString()}`,
    );
  }
  return seen;
}

const exited = (exitCode: number): Uint8Array => toBinary(ExitStatusSchema, create(ExitStatusSchema, { exitCode }));
const takenBytes = (bytes: number): Uint8Array =>
  toBinary(StdinTakenSchema, create(StdinTakenSchema, { bytes: BigInt(bytes) }));

test("exec: input goes in order and in bounded pieces, output and exit come out, the connection is closed", async (context) => {
  let sent = 0;
  let taken = 0;
  const { fake, guest } = await connectedGuest(context, {
    service: {},
    bulk: bulkSession(({ kind, payload, answer }) => {
      assert.ok(payload.length <= maxPayloadBytes);
      if (kind === FrameKind.EXEC) {
        assert.deepEqual(fromBinary(ExecStartSchema, payload).argv, ["cat"]);
        answer(FrameKind.STARTED);
      } else if (kind === FrameKind.STDIN) {
        sent += payload.length;
        assert.ok(sent - taken <= stdinWindowBytes, `${sent} bytes sent, ${taken} taken`);
        const bytes = sent;
        setImmediate(() => {
          taken = bytes;
          answer(FrameKind.TAKEN, takenBytes(bytes));
        });
      } else if (kind === FrameKind.RESIZE) {
        const { rows, columns } = fromBinary(TerminalSizeSchema, payload);
        answer(FrameKind.STDERR, Buffer.from(`${rows}x${columns}`));
      } else if (kind === FrameKind.STDIN_END) {
        answer(FrameKind.STDOUT, Buffer.from(`${sent}`));
        answer(FrameKind.EXITED, exited(43));
      }
    }),
  });
  const output = execInGuest({
    guest,
    argv: ["cat"],
    terminal: true,
    input: inputs(
      { kind: "resize", rows: 50, columns: 40 },
      { kind: "stdin", data: Buffer.alloc(1_500_000) },
      { kind: "stdin_end" },
    ),
    signal: new AbortController().signal,
  });
  assert.deepEqual(await collect(output), ["stderr 50x40", "stdout 1500000", "exit 43"]);
  // The control connection stays.
  await context.waitFor(() => assert.equal(fake.connectionCount, 1));
});

test("exec: a refusal has the guest's reason", async (context) => {
  const refusal = toBinary(RefusalSchema, create(RefusalSchema, { code: Code.NotFound, message: "no such program" }));
  const { guest } = await connectedGuest(context, {
    service: {},
    bulk: bulkSession(({ answer }) => answer(FrameKind.REFUSED, refusal)),
  });
  const { signal } = new AbortController();
  await assert.rejects(
    collect(execInGuest({ guest, argv: ["nothing"], terminal: false, input: inputs(), signal })),
    (error: unknown) => error instanceof GuestRefusedError && error.reason === "not_found",
  );
});

test("exec: a stream that ends without an exit is an error, as is a guest that never answers", async (context) => {
  const unfinished = await connectedGuest(context, {
    service: {},
    bulk: bulkSession(({ answer, socket }) => {
      answer(FrameKind.STARTED);
      socket.end();
    }),
  });
  const silent = await connectedGuest(context, { service: {}, answer: () => undefined, firstAnswerMs: 1_000 });
  const run = (guest: GuestClient, signal = new AbortController().signal): Promise<string[]> =>
    collect(execInGuest({ guest, argv: ["x"], terminal: false, input: inputs(), signal }));
  await assert.rejects(run(unfinished.guest), /without an exit status/);
  await assert.rejects(run(silent.guest), /the guest does not answer: exec: no answer within \d+ s/);
});

test("exec: the first answer may take 15 s on a busy host", () => {
  using guest = new GuestClient({ vsockPath: "/nowhere" });
  assert.equal(guest.firstAnswerMs, 15_000);
});

test("exec: a guest that is silent for longer than a call's deadline is greeted again", async (context) => {
  let dials = 0;
  const { guest } = await connectedGuest(context, {
    service: {},
    answer: () => (++dials === 1 ? undefined : "OK 1\n"),
    bulk: bulkSession(({ answer }) => {
      answer(FrameKind.STARTED);
      answer(FrameKind.EXITED, exited(3));
    }),
  });
  const { signal } = new AbortController();
  const session = execInGuest({ guest, argv: ["x"], terminal: false, input: inputs(), signal });
  assert.deepEqual(await collect(session), ["exit 3"]);
});

test("exec: a connection that comes after the caller gave up harms nobody", async (context) => {
  const path = await socketPath(context);
  const late = Promise.withResolvers<void>();
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    void late.promise.then(() => socket.write("OK 1\n"));
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const guest = new GuestClient({ vsockPath: path });
  context.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
    guest[Symbol.dispose]();
  });
  const stop = new AbortController();
  const session = execInGuest({ guest, argv: ["x"], terminal: false, input: inputs(), signal: stop.signal });
  const first = session.next();
  await context.waitFor(() => assert.equal(sockets.size, 1));
  stop.abort(new Error("enough"));
  late.resolve();
  await assert.rejects(first, /enough/);
  // An uncaught error would fail this test.
  await new Promise((resolve) => setTimeout(resolve, 50));
});

test("exec: aborting ends the session", async (context) => {
  const closed = Promise.withResolvers<void>();
  const { guest } = await connectedGuest(context, {
    service: {},
    bulk: bulkSession(({ answer, socket }) => {
      socket.once("close", () => closed.resolve());
      answer(FrameKind.STARTED);
      answer(FrameKind.STDOUT, Buffer.from("up"));
    }),
  });
  const stop = new AbortController();
  const session = execInGuest({ guest, argv: ["x"], terminal: false, input: inputs(), signal: stop.signal });
  assert.equal((await session.next()).value?.kind, "stdout");
  stop.abort(new Error("the user left"));
  await assert.rejects(session.next(), /the user left/);
  await closed.promise;
});
