import assert from "node:assert/strict";
import { createServer, type Socket } from "node:net";
import { test } from "node:test";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { connectedGuest, hello, socketPath } from "../../../test/fakes/connected-guest.ts";
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
import { hostFrame, largestPayloadBytes, stdinWindowBytes } from "./frames.ts";
import { type ExecInput, type ExecOutput, execInGuest } from "./session.ts";

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

test("exec: input goes in order and in bounded pieces, output and exit come out, the connection is closed", async (context) => {
  const { fake, guest } = await connectedGuest(context, {
    service: {
      async *exec(requests) {
        let bytes = 0;
        for await (const { request } of requests) {
          if (request.case === "start") yield { response: { case: "started", value: { pid: 7 } } };
          if (request.case === "resize") {
            yield {
              response: { case: "stderr", value: Buffer.from(`${request.value.rows}x${request.value.columns}`) },
            };
          }
          if (request.case === "stdin") {
            assert.ok(request.value.length <= 64 * 1024);
            bytes += request.value.length;
          }
          if (request.case === "stdinEnd") {
            yield { response: { case: "stdout", value: Buffer.from(`${bytes}`) } };
            yield { response: { case: "exited", value: { exitCode: 43 } } };
            return;
          }
        }
      },
    },
  });
  const output = execInGuest({
    guest,
    argv: ["cat"],
    terminal: true,
    input: inputs(
      { kind: "resize", rows: 50, columns: 40 },
      { kind: "stdin", data: Buffer.alloc(150_000) },
      { kind: "stdin_end" },
    ),
    signal: new AbortController().signal,
  });
  assert.deepEqual(await collect(output), ["stderr 50x40", "stdout 150000", "exit 43"]);
  // The one for control calls stays.
  await context.waitFor(() => assert.equal(fake.connectionCount, 1));
});

test("exec by bulk stream: the same, and a refusal has the guest's reason", async (context) => {
  const path = await socketPath(context);
  const status = toBinary(ExitStatusSchema, create(ExitStatusSchema, { exitCode: 43 }));
  const refusal = toBinary(RefusalSchema, create(RefusalSchema, { code: Code.NotFound, message: "no such program" }));
  let input = 0;
  let sent = 0;
  let taken = 0;
  const server = createServer((socket) => {
    const answer = (kind: FrameKind, payload: Uint8Array): void => {
      for (const part of hostFrame(kind, payload)) socket.write(part);
    };
    let bytes = Buffer.alloc(0);
    socket.on("error", () => {});
    socket.once("data", (line: Buffer) => {
      assert.equal(line.toString("latin1"), "CONNECT 11\n");
      socket.write("OK 1\n");
      socket.on("data", (chunk: Buffer) => {
        bytes = Buffer.concat([bytes, chunk]);
        while (bytes.length >= 4 && bytes.length >= 4 + bytes.readUIntBE(1, 3)) {
          const payload = bytes.subarray(4, 4 + bytes.readUIntBE(1, 3));
          const kind: FrameKind = bytes[0] ?? 0;
          bytes = bytes.subarray(4 + payload.length);
          assert.ok(payload.length <= largestPayloadBytes);
          if (kind === FrameKind.EXEC) {
            const [program] = fromBinary(ExecStartSchema, payload).argv;
            if (program === "cat") answer(FrameKind.STARTED, new Uint8Array());
            else answer(FrameKind.REFUSED, refusal);
          } else if (kind === FrameKind.STDIN) {
            input += payload.length;
            sent += payload.length;
            assert.ok(sent - taken <= stdinWindowBytes, `${sent} bytes sent, ${taken} taken`);
            const bytes = BigInt(sent);
            setTimeout(() => {
              taken = Number(bytes);
              answer(FrameKind.TAKEN, toBinary(StdinTakenSchema, create(StdinTakenSchema, { bytes })));
            }, 1);
          } else if (kind === FrameKind.RESIZE) {
            const { rows, columns } = fromBinary(TerminalSizeSchema, payload);
            answer(FrameKind.STDERR, Buffer.from(`${rows}x${columns}`));
          } else if (kind === FrameKind.STDIN_END) {
            answer(FrameKind.STDOUT, Buffer.from(`${input}`));
            answer(FrameKind.EXITED, status);
          }
        }
      });
    });
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  context.after(() => server.close());
  using guest = new GuestClient({ vsockPath: path, bulkPort: 11 });
  const run = (program: string, ...values: ExecInput[]): Promise<string[]> => {
    const { signal } = new AbortController();
    return collect(execInGuest({ guest, argv: [program], terminal: true, input: inputs(...values), signal }));
  };
  const output = await run(
    "cat",
    { kind: "resize", rows: 50, columns: 40 },
    { kind: "stdin", data: Buffer.alloc(1_500_000) },
    { kind: "stdin_end" },
  );
  assert.deepEqual(output, ["stderr 50x40", "stdout 1500000", "exit 43"]);
  await assert.rejects(
    run("nothing"),
    (error: unknown) => error instanceof GuestRefusedError && error.reason === "not_found",
  );
});

test("exec: a stream that ends without an exit is an error, as is a guest that never answers", async (context) => {
  const silent = await connectedGuest(context, { service: {}, answer: () => undefined });
  const unfinished = await connectedGuest(context, {
    service: {
      async *exec() {
        yield { response: { case: "started" as const, value: { pid: 7 } } };
      },
    },
  });
  const run = (guest: GuestClient, signal = new AbortController().signal): Promise<string[]> =>
    collect(execInGuest({ guest, argv: ["x"], terminal: false, input: inputs(), signal }));
  await assert.rejects(run(unfinished.guest), /without an exit status/);
  await assert.rejects(run(silent.guest), /the guest does not answer: exec: no answer within 4 s/);
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
  // An error that nobody catches would fail this test.
  await new Promise((resolve) => setTimeout(resolve, 50));
});

test("exec: a guest that answers others is slow, not dead", async (context) => {
  const { guest } = await connectedGuest(context, {
    service: {
      hello: () => hello,
      async *exec() {
        await new Promise((resolve) => setTimeout(resolve, 5_000));
        yield { response: { case: "exited" as const, value: { exitCode: 3 } } };
      },
    },
  });
  setTimeout(() => void guest.hello(), 2_500);
  const { signal } = new AbortController();
  const session = execInGuest({ guest, argv: ["x"], terminal: false, input: inputs(), signal });
  assert.deepEqual(await collect(session), ["exit 3"]);
});

test("exec: aborting ends the session", async (context) => {
  const ended = Promise.withResolvers<void>();
  const { guest } = await connectedGuest(context, {
    service: {
      async *exec(_requests, call) {
        yield { response: { case: "started" as const, value: { pid: 7 } } };
        yield { response: { case: "stdout" as const, value: Buffer.from("up") } };
        await new Promise<void>((resolve) => call.signal.addEventListener("abort", () => resolve()));
        ended.resolve();
      },
    },
  });
  const stop = new AbortController();
  const session = execInGuest({ guest, argv: ["x"], terminal: false, input: inputs(), signal: stop.signal });
  assert.equal((await session.next()).value?.kind, "stdout");
  stop.abort(new Error("the user left"));
  await assert.rejects(session.next(), /the user left/);
  await ended.promise;
});
