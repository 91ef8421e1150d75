import assert from "node:assert/strict";
import { test } from "node:test";
import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import {
  ExecTaskStreamingRequestSchema,
  type ExecTaskStreamingResponse,
  ExecTaskStreamingResponseSchema,
} from "../gen/nomad/drivers/driver_pb.js";
import { type ExecMessage, encodeAnswer, execMessages } from "./exec-wire.ts";

function prefixed(message: Uint8Array): Buffer {
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(message.length, 1);
  return Buffer.concat([prefix, message]);
}

const request = (message: MessageInitShape<typeof ExecTaskStreamingRequestSchema>): Buffer =>
  prefixed(toBinary(ExecTaskStreamingRequestSchema, create(ExecTaskStreamingRequestSchema, message)));

async function read(...chunks: Uint8Array[]): Promise<ExecMessage[]> {
  async function* source(): AsyncGenerator<Uint8Array> {
    yield* chunks;
  }
  const messages: ExecMessage[] = [];
  for await (const message of execMessages(source())) messages.push(message);
  return messages;
}

const texts = (messages: ExecMessage[]): string[] =>
  messages.map((message) => (message.kind === "stdin" ? Buffer.from(message.data).toString() : message.kind));

test("input that arrived together is one piece; what means something else keeps its place", async () => {
  const wire = Buffer.concat([
    request({ setup: { taskId: "t", command: ["a", "b"], tty: true } }),
    request({ stdin: { data: Buffer.from("a") } }),
    request({}),
    request({ stdin: {} }),
    request({ stdin: { data: Buffer.from("b") } }),
    request({ ttySize: { height: 0, width: 0 } }),
    request({ ttySize: { height: 3, width: 4 } }),
    request({ stdin: { data: Buffer.from("c"), close: true } }),
  ]);
  const messages = await read(wire);
  assert.deepEqual(texts(messages), ["setup", "ab", "resize", "c", "stdin_end"]);
  assert.deepEqual(messages[0], { kind: "setup", taskId: "t", command: ["a", "b"], terminal: true });
  assert.deepEqual(messages[2], { kind: "resize", rows: 3, columns: 4 });
});

test("however the bytes are cut, the same arrive in the same order", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 20 }),
      fc.array(fc.integer({ min: 1, max: 400 }), { minLength: 1, maxLength: 10 }),
      async (pieces, cuts) => {
        const wire = Buffer.concat(pieces.map((data) => request({ stdin: { data } })));
        const chunks: Buffer[] = [];
        for (let at = 0; at < wire.length; ) {
          const cut = cuts[chunks.length % cuts.length] ?? 1;
          chunks.push(wire.subarray(at, at + cut));
          at += cut;
        }
        const got = (await read(...chunks)).map((message) =>
          message.kind === "stdin" ? message.data : Buffer.alloc(0),
        );
        assert.deepEqual(Buffer.concat(got), Buffer.concat(pieces));
      },
    ),
  );
});

test("compressed, oversized and broken messages are refused", async () => {
  await assert.rejects(read(Buffer.from([1, 0, 0, 0, 0])), /compressed/);
  await assert.rejects(read(Buffer.from([0, 0xff, 0, 0, 0])), /a message of 4278190080 bytes/);
  await assert.rejects(read(prefixed(Buffer.from([0x1a, 0x7f, 1]))));
});

test("an answer is one message with its length in front, as the library writes it", () => {
  const big = Buffer.alloc(70_000, "x");
  for (const answer of [
    { stdout: { data: Buffer.from("out") } },
    { stderr: { data: big } },
    { stdout: { data: new Uint8Array() } },
    { exited: true, result: { exitCode: 3, signal: 9 } },
    {},
  ]) {
    const bytes = Buffer.from(encodeAnswer(answer));
    assert.equal(bytes[0], 0);
    assert.equal(bytes.readUInt32BE(1), bytes.length - 5);
    const canonical = (message: ExecTaskStreamingResponse): Buffer =>
      Buffer.from(toBinary(ExecTaskStreamingResponseSchema, message));
    const decoded = fromBinary(ExecTaskStreamingResponseSchema, bytes.subarray(5));
    assert.ok(canonical(decoded).equals(canonical(create(ExecTaskStreamingResponseSchema, answer))));
  }
});
