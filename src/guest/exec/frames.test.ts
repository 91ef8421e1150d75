import assert from "node:assert/strict";
import { test } from "node:test";
import { create, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { ExitStatusSchema, FrameKind, RefusalSchema } from "../../gen/litegix/guest/v1/guest_pb.js";
import { type GuestFrame, GuestFrameReader, hostFrame, maxPayloadBytes } from "./frames.ts";

const frame = (kind: FrameKind, payload: Uint8Array): Buffer => Buffer.concat(hostFrame(kind, payload));

function read(wire: Uint8Array, cuts: readonly number[]): GuestFrame[] {
  const reader = new GuestFrameReader();
  const frames: GuestFrame[] = [];
  for (let at = 0, index = 0; at < wire.length; index++) {
    const cut = cuts[index % cuts.length] ?? 1;
    frames.push(...reader.read(wire.subarray(at, at + cut)));
    at += cut;
  }
  return frames;
}

test("frames cut anywhere give the same bytes of each stream, then the exit", () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.boolean(), fc.uint8Array({ maxLength: 300 })), { maxLength: 20 }),
      fc.array(fc.integer({ min: 1, max: 400 }), { minLength: 1, maxLength: 10 }),
      (pieces, cuts) => {
        const status = toBinary(ExitStatusSchema, create(ExitStatusSchema, { exitCode: 43 }));
        const wire = Buffer.concat([
          ...pieces.map(([error, data]) => frame(error ? FrameKind.STDERR : FrameKind.STDOUT, data)),
          frame(FrameKind.EXITED, status),
        ]);
        const frames = read(wire, cuts);
        for (const stream of ["stdout", "stderr"] as const) {
          const got = frames.map((it) => (it.kind === stream ? it.data : Buffer.alloc(0)));
          const wanted = pieces.map(([error, data]) => (error === (stream === "stderr") ? data : Buffer.alloc(0)));
          assert.deepEqual(Buffer.concat(got), Buffer.concat(wanted));
        }
        assert.deepEqual(frames.at(-1), { kind: "exited", exitCode: 43, signal: 0 });
      },
    ),
  );
});

test("a refusal has its code and words", () => {
  const wire = frame(FrameKind.REFUSED, toBinary(RefusalSchema, create(RefusalSchema, { code: 5, message: "no" })));
  assert.deepEqual(read(wire, [1]), [{ kind: "refused", code: 5, message: "no" }]);
});

test("a frame that is too large and one of an unknown kind are refused at their header", () => {
  const claim = (kind: number, length: number): Buffer => {
    const header = Buffer.alloc(4);
    header[0] = kind;
    header.writeUIntBE(length, 1, 3);
    return header;
  };
  assert.throws(() => read(claim(FrameKind.STDOUT, maxPayloadBytes + 1), [4]), /a frame of 65533 bytes/);
  assert.throws(() => read(claim(FrameKind.EXITED, 0xff_ff_ff), [4]), /a frame of 16777215 bytes/);
  assert.throws(() => read(claim(99, 0), [4]), /a frame of kind 99/);
});
