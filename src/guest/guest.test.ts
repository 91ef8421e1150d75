import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { FakeGuest, type FakeGuestOptions } from "../../test/fakes/fake-guest.ts";
import {
  ExecStartSchema,
  ExitStatusSchema,
  FrameKind,
  RefusalSchema,
  StdinTakenSchema,
  TerminalSizeSchema,
} from "../gen/litegix/guest/v1/guest_pb.js";
import { hostFrame, largestPayloadBytes, stdinWindowBytes } from "./bulk-frames.ts";
import { dial } from "./dial.ts";
import { cleanGuestText, GuestRefusedError, GuestUnreachableError } from "./errors.ts";
import { type ExecInput, type ExecOutput, execInGuest } from "./exec-session.ts";
import { GuestClient } from "./guest-client.ts";

async function socketPath(context: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "litegix-guest-test-"));
  context.after(() => rm(directory, { recursive: true }));
  return join(directory, "v.sock");
}

async function fakeGuest(
  context: TestContext,
  options: Omit<FakeGuestOptions, "socketPath">,
): Promise<{ fake: FakeGuest; guest: GuestClient; path: string }> {
  const path = await socketPath(context);
  const fake = await FakeGuest.start({ socketPath: path, ...options });
  const guest = new GuestClient({ vsockPath: path });
  context.after(async () => {
    guest[Symbol.dispose]();
    await fake[Symbol.asyncDispose]();
  });
  return { fake, guest, path };
}

const hello = { generation: 1, version: "0.1.0", kernelRelease: "6.1", state: 1, uptimeNs: 5_000_000n };

test("hello: the guest's facts in plain types", async (context) => {
  const { guest } = await fakeGuest(context, { service: { hello: () => hello } });
  assert.deepEqual(await guest.hello(), { version: "0.1.0", kernelRelease: "6.1", state: "booted", uptimeMs: 5 });
});

test("generations: what a guest of another age says is told, and nothing else is asked of it", async (context) => {
  let signals = 0;
  const signal = () => {
    signals += 1;
    return {};
  };
  // A guest that is newer and no longer speaks ours, as crates/init/src/generation.rs refuses.
  const newer = await fakeGuest(context, {
    service: {
      signal,
      hello: ({ generationMin, generationMax }) => {
        const text = `the guest speaks generations 4 to 5 of its protocol, the driver ${generationMin} to ${generationMax}`;
        throw new ConnectError(text, Code.FailedPrecondition);
      },
    },
  });
  // One that is older, and does not know to refuse.
  const older = await fakeGuest(context, { service: { signal, hello: () => ({ ...hello, generation: 0 }) } });
  for (const [{ guest }, says] of [
    [newer, "the guest speaks generations 4 to 5 of its protocol, the driver 1 to 1: restart the task"],
    [older, "the guest speaks generation 0 of its protocol, the driver 1 to 1: restart the task"],
  ] as const) {
    const refused = { code: "guest_incompatible", message: says };
    await assert.rejects(guest.hello(), refused);
    await assert.rejects(guest.sendSignal({ signalNumber: 1 }), refused);
    const session = execInGuest({
      guest,
      argv: ["x"],
      terminal: false,
      input: inputs(),
      signal: new AbortController().signal,
    });
    await assert.rejects(session.next(), refused);
  }
  assert.equal(signals, 0);
});

test("generations: a driver that speaks more than one talks in the guest's", async (context) => {
  const path = await socketPath(context);
  const asked: number[][] = [];
  await using _fake = await FakeGuest.start({
    socketPath: path,
    service: {
      hello: ({ generationMin, generationMax }) => {
        asked.push([generationMin, generationMax]);
        return { ...hello, generation: 2 };
      },
      signal: () => ({}),
    },
  });
  using guest = new GuestClient({ vsockPath: path, generations: { lowest: 2, highest: 4 } });
  await guest.sendSignal({ signalNumber: 1 });
  await guest.sendSignal({ signalNumber: 1 });
  assert.deepEqual(asked, [[2, 4]]);
});

for (const [name, answer] of [
  ["an answer that is no OK", () => "NO\n"],
  ["an endless line", () => "OK ".padEnd(5000, "1")],
] as const) {
  test(`dial: ${name} is refused`, async (context) => {
    const { path } = await fakeGuest(context, { service: {}, answer });
    await assert.rejects(dial({ socketPath: path, port: 10, timeoutMs: 1000 }), GuestUnreachableError);
  });
}

test("dial: silence ends at the deadline, a signal ends it at once, no socket is an error", async (context) => {
  const { path } = await fakeGuest(context, { service: {}, answer: () => undefined });
  await assert.rejects(dial({ socketPath: path, port: 10, timeoutMs: 50 }), /no connection within 50 ms/);
  const signal = AbortSignal.abort(new Error("stopped"));
  await assert.rejects(dial({ socketPath: path, port: 10, timeoutMs: 5000, signal }), /stopped/);
  await assert.rejects(dial({ socketPath: `${path}.none`, port: 10, timeoutMs: 5000 }), /ENOENT/);
});

test("waitUntilReady: tries until the guest listens, and gives up at its deadline", async (context) => {
  let attempts = 0;
  const { guest } = await fakeGuest(context, {
    service: { hello: () => hello },
    answer: () => (++attempts < 3 ? "NO\n" : "OK 1\n"),
  });
  const { signal } = new AbortController();
  assert.equal((await guest.waitUntilReady({ timeoutMs: 5000, signal })).state, "booted");
  const nobody = new GuestClient({ vsockPath: await socketPath(context) });
  await assert.rejects(nobody.waitUntilReady({ timeoutMs: 50, signal }), /its agent did not come up within 0.05 s/);
});

test("a refusal has the guest's reason and its words, cleaned", async (context) => {
  const { guest } = await fakeGuest(context, {
    service: {
      start: () => {
        throw new ConnectError('exec: "foo"\u001b[31m\nnot found', Code.NotFound);
      },
    },
  });
  await assert.rejects(guest.start(), (error: unknown) => {
    assert.ok(error instanceof GuestRefusedError);
    assert.equal(error.reason, "not_found");
    assert.equal(error.message, 'exec: "foo" [31m not found');
    return true;
  });
});

test("guest text is one printable line of bounded length", () => {
  assert.equal(cleanGuestText("a\u0000\r\nb\u2028c"), "a b c");
  assert.equal(cleanGuestText("x".repeat(1000)).length, 300);
});

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
  const { fake, guest } = await fakeGuest(context, {
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
  const silent = await fakeGuest(context, { service: {}, answer: () => undefined });
  const unfinished = await fakeGuest(context, {
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
  const { guest } = await fakeGuest(context, {
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
  const { guest } = await fakeGuest(context, {
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
