import assert from "node:assert/strict";
import { mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import fc from "fast-check";
import { exists } from "./files.ts";
import { AsyncQueue, KeyedTurns, pollUntil, Slots, within } from "./wait.ts";

const onTimeout = (): Error => new Error("too late");
/** Longer than any test runs: only a notification can resolve the wait. */
const never = { intervalMs: 600_000, timeoutMs: 900_000, onTimeout };

it("a promise is in time or not, and its failure is the caller's", async () => {
  assert.equal(await within(Promise.resolve(), 600_000), true);
  assert.equal(await within(new Promise(() => {}), 0), false);
  await assert.rejects(within(Promise.reject(new Error("broken")), 600_000), /broken/);
});

describe("waiting", () => {
  let directory = "";
  let elsewhere = "";
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), "poll-"));
    elsewhere = await mkdtemp(join(tmpdir(), "poll-"));
  });
  after(() => Promise.all([directory, elsewhere].map((path) => rm(path, { recursive: true }))));

  it("a file that appears, in any way, is noticed without polling", async () => {
    for (const [index, appear] of [
      (path: string) => writeFile(path, ""),
      async (path: string) => {
        await writeFile(join(elsewhere, "file"), "");
        await rename(join(elsewhere, "file"), path);
      },
    ].entries()) {
      const path = join(directory, `file-${index}`);
      let looks = 0;
      const seen = pollUntil({
        ...never,
        directory,
        attempt: async () => {
          looks += 1;
          return (await exists(path)) || undefined;
        },
      });
      while (looks === 0) await turn();
      await appear(path);
      assert.equal(await seen, true);
    }
  });

  it("an abort ends it with the signal's reason, with a directory and without", async () => {
    for (const watched of [undefined, directory]) {
      const stop = new AbortController();
      const waiting = pollUntil({
        ...never,
        directory: watched,
        attempt: async () => undefined,
        signal: stop.signal,
      });
      stop.abort(new Error("stopped"));
      await assert.rejects(waiting, /stopped/);
    }
  });

  it("the deadline's error is thrown, even if the directory does not exist", async () => {
    await assert.rejects(
      pollUntil({
        directory: join(directory, "missing"),
        attempt: async () => undefined,
        intervalMs: 1,
        timeoutMs: 5,
        onTimeout,
      }),
      /too late/,
    );
  });
});

const { signal } = new AbortController();

describe("slots", () => {
  it("are never more than `count`, and are given in the order of the calls", async () => {
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

  it("are not lost if a caller stops waiting", async () => {
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

  it("that are given back twice are given back once", async () => {
    const slots = new Slots(1);
    const first = await slots.take(signal);
    first[Symbol.dispose]();
    const second = await slots.take(signal);
    first[Symbol.dispose]();
    assert.equal(slots.hasFree, false);
    second[Symbol.dispose]();
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

describe("turns", () => {
  it("go one at a time for a key, in order, past one that fails; another key's do not wait", async () => {
    const turns = new KeyedTurns();
    const gate = Promise.withResolvers<void>();
    const order: string[] = [];
    const works = [
      turns.take("a", () => gate.promise.then(() => order.push("first"))),
      turns.take("a", () => Promise.reject(new Error("it failed"))),
      turns.take("a", async () => order.push("third")),
    ];
    await turns.take("b", async () => order.push("other"));
    gate.resolve();
    const ends = await Promise.allSettled(works);
    assert.deepEqual(order, ["other", "first", "third"]);
    assert.deepEqual(
      ends.map(({ status }) => status),
      ["fulfilled", "rejected", "fulfilled"],
    );
  });
});

it("a queue gives values in order, drops the oldest over its limit, and ends with the signal", async () => {
  const queue = new AsyncQueue<number>({ limit: 2 });
  for (const value of [1, 2, 3]) queue.push(value);
  const stop = new AbortController();
  const seen: number[] = [];
  for await (const value of queue.read(stop.signal)) {
    seen.push(value);
    if (value === 3) queue.push(4);
    if (value === 4) stop.abort();
  }
  assert.deepEqual(seen, [2, 3, 4]);
});
