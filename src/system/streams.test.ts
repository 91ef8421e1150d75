import assert from "node:assert/strict";
import { Writable } from "node:stream";
import { test } from "node:test";
import { drained } from "./streams.ts";

/** A stream that is full after one byte, and the way to empty it. */
function fullStream(): { stream: Writable; empty: () => void } {
  let taken: (() => void) | undefined;
  const stream = new Writable({
    highWaterMark: 1,
    write: (_chunk, _encoding, callback) => {
      taken = callback;
    },
  });
  assert.equal(stream.write("x"), false);
  return { stream, empty: () => taken?.() };
}

test("it waits until the stream takes more, and leaves no listeners", async () => {
  const { stream, empty } = fullStream();
  let over = false;
  const waiting = drained(stream).then(() => {
    over = true;
  });
  await Promise.resolve();
  assert.equal(over, false);
  empty();
  await waiting;
  assert.deepEqual([stream.listenerCount("drain"), stream.listenerCount("close")], [0, 0]);
});

test("a stream that is destroyed, meanwhile or before, is not waited for", async () => {
  const { stream } = fullStream();
  const waiting = drained(stream);
  stream.destroy();
  await waiting;
  await drained(stream);
});
