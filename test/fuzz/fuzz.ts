// Throws generated input at every parser of guests' data, each for LITEGIX_FUZZ_SECONDS (default 60). Each must give a
// typed error or a bounded result. A failure prints its seed and the smallest input that fails. Run by `make fuzz`.
// Usage: fuzz.ts [PART/PARTS], 1/2 for the first of two halves: each target keeps one CPU busy.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fromBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { HelloResponseSchema, StatsResponseSchema } from "../../src/gen/litegix/guest/v1/guest_pb.js";
import { StatusResponseSchema } from "../../src/gen/litegix/shim/v1/shim_pb.js";
import { GuestClient } from "../../src/guest/client.ts";
import { dial } from "../../src/guest/dial.ts";
import { GuestRefusedError, GuestUnreachableError } from "../../src/guest/errors.ts";
import { execInGuest } from "../../src/guest/exec/session.ts";
import { printable } from "../../src/system/error.ts";
import { bulk, frame, HostileGuest, message } from "../fakes/hostile-guest.ts";

const [part = 1, parts = 1] = (process.argv[2] ?? "1/1").split("/").map(Number);
assert.ok(part >= 1 && part <= parts, `${process.argv[2]} is not a part: 1/2 is the first of two`);
const timeLimitMs = Number(process.env["LITEGIX_FUZZ_SECONDS"] ?? "60") * 1000;
const directory = await mkdtemp(join(tmpdir(), "litegix-fuzz-"));

const bytes = fc.uint8Array({ maxLength: 2_000 });
/** Field numbers and lengths as protobuf writes them, so that parsers read past the first byte. */
const protobuf = fc
  .array(fc.tuple(fc.integer({ min: 1, max: 20 }), fc.constantFrom(0, 1, 2, 3, 4, 5), bytes, fc.nat(300)), {
    maxLength: 12,
  })
  .map((fields) =>
    Buffer.concat(
      fields.flatMap(([field, type, body, length]) => [
        Buffer.from([(field << 3) | type, ...(type === 2 ? [length & 0x7f] : [])]),
        body.subarray(0, type === 2 ? length : 9),
      ]),
    ),
  );
/** HTTP/2 frames, some with gRPC messages in them, some with wrong lengths. */
const frames = fc
  .array(
    fc.record({
      type: fc.integer({ min: 0, max: 11 }),
      flags: fc.integer({ min: 0, max: 255 }),
      stream: fc.constantFrom(0, 1, 1, 1, 2, 3),
      payload: fc.oneof(
        bytes,
        protobuf.map((body) => message(body)),
      ),
      excess: fc.constantFrom(0, 0, 0, 1, 70_000),
    }),
    { maxLength: 10 },
  )
  .map((list) =>
    Buffer.concat(
      list.map(({ type, flags, stream, payload, excess }) =>
        frame(type, flags, stream, payload, payload.length + excess),
      ),
    ),
  );

/** Frames of a bulk stream, some with wrong lengths. */
const bulkFrames = fc
  .array(
    fc.record({
      kind: fc.oneof(fc.constantFrom(16, 17, 18, 19, 22), fc.integer({ min: 0, max: 255 })),
      payload: fc.oneof(bytes, protobuf),
      excess: fc.constantFrom(0, 0, 0, 1, 0xff_00_00),
    }),
    { maxLength: 10 },
  )
  .map((list) => Buffer.concat(list.map(({ kind, payload, excess }) => bulk(kind, payload, payload.length + excess))));

let sockets = 0;
async function withGuest(answer: Uint8Array, run: (socketPath: string) => Promise<unknown>): Promise<void> {
  sockets += 1;
  const socketPath = join(directory, `${sockets}`);
  await using _guest = await HostileGuest.start({
    socketPath,
    behaviour: (socket) => socket.once("data", () => socket.end(answer)),
  });
  try {
    await run(socketPath);
  } catch (error) {
    assert.ok(error instanceof GuestUnreachableError || error instanceof GuestRefusedError, String(error));
  }
}

async function* noInput(): AsyncGenerator<never> {
  yield* [];
}

const decodes = (schema: Parameters<typeof fromBinary>[0]) =>
  fc.property(fc.oneof(bytes, protobuf), (data) => {
    try {
      fromBinary(schema, data);
    } catch (error) {
      assert.ok(error instanceof Error);
    }
  });

const targets: Record<string, fc.IAsyncProperty<unknown> | fc.IProperty<unknown>> = {
  "the answer to CONNECT": fc.asyncProperty(
    fc.oneof(
      bytes,
      fc
        .tuple(fc.constantFrom("OK ", "OK 1", "OK 1\n"), bytes)
        .map(([ok, rest]) => Buffer.concat([Buffer.from(ok), rest])),
    ),
    (answer) =>
      withGuest(answer, async (socketPath) => {
        (await dial({ socketPath, port: 10, timeoutMs: 1_000 })).destroy();
      }),
  ),
  "the answers to a call": fc.asyncProperty(frames, (data) =>
    withGuest(Buffer.concat([Buffer.from("OK 1\n"), frame(4, 0, 0, Buffer.alloc(0)), data]), async (vsockPath) => {
      using guest = new GuestClient({ vsockPath });
      await guest.stats();
    }),
  ),
  "a bulk stream's frames": fc.asyncProperty(bulkFrames, (data) =>
    withGuest(Buffer.concat([Buffer.from("OK 1\n"), data]), async (vsockPath) => {
      using guest = new GuestClient({ vsockPath, greeted: true });
      const { signal } = new AbortController();
      for await (const _ of execInGuest({ guest, argv: ["x"], terminal: false, input: noInput(), signal }));
    }),
  ),
  "messages: hello": decodes(HelloResponseSchema),
  "messages: stats": decodes(StatsResponseSchema),
  "messages: the supervisor's status": decodes(StatusResponseSchema),
  "a guest's text in errors": fc.property(fc.string({ unit: "binary", maxLength: 3_000 }), (text) => {
    const clean = printable(text);
    assert.ok(clean.length <= 300);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: the test asserts that none is left
    assert.doesNotMatch(clean, /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/);
  }),
};

try {
  // One after the other: a synchronous target blocks the event loop.
  for (const [index, [name, property]] of Object.entries(targets).entries()) {
    if (index % parts !== part - 1) continue;
    const started = performance.now();
    const details = await fc.check(property as fc.IAsyncProperty<unknown>, {
      numRuns: Number.MAX_SAFE_INTEGER,
      interruptAfterTimeLimit: timeLimitMs,
      markInterruptAsFailure: false,
    });
    if (details.failed) throw new Error(`${name}: ${fc.defaultReportMessage(details)}`);
    console.log(`fuzz: ${name}: ${details.numRuns} inputs in ${((performance.now() - started) / 1000).toFixed(0)} s`);
  }
} finally {
  await rm(directory, { recursive: true, force: true });
}
