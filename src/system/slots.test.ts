import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import fc from "fast-check";
import { Slots } from "./slots.ts";

const { signal } = new AbortController();

describe("slots", () => {
  it("are never more than there are, and are given in the order of asking", async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 4 }), fc.array(fc.nat(3), { maxLength: 20 }), async (count, works) => {
        const slots = new Slots(count);
        const order: number[] = [];
        let running = 0;
        await Promise.all(
          works.map(async (turns, index) => {
            using _ = await slots.take(signal);
            order.push(index);
            running += 1;
            assert.ok(running <= count);
            for (let left = turns; left > 0; left--) await turn();
            running -= 1;
          }),
        );
        assert.deepEqual(order, [...works.keys()]);
        assert.ok(slots.hasFree);
      }),
      { numRuns: 50 },
    );
  });

  it("are not lost with one who stops waiting", async () => {
    const slots = new Slots(1);
    const held = await slots.take(signal);
    const leaving = new AbortController();
    const gone = slots.take(leaving.signal);
    const staying = slots.take(signal);
    leaving.abort(new Error("enough"));
    await assert.rejects(gone, /enough/);
    assert.equal(slots.hasFree, false);
    held[Symbol.dispose]();
    (await staying)[Symbol.dispose]();
    assert.ok(slots.hasFree);
  });

  it("that are given and refused in one moment go on to the next", async () => {
    const slots = new Slots(1);
    const held = await slots.take(signal);
    const leaving = new AbortController();
    const gone = slots.take(leaving.signal);
    const staying = slots.take(signal);
    leaving.abort(new Error("enough"));
    held[Symbol.dispose]();
    await assert.rejects(gone, /enough/);
    (await staying)[Symbol.dispose]();
    assert.ok(slots.hasFree);
  });
});
