import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { chunkBytes, type ExecInput, ExecInputQueue } from "./input.ts";

const stdin = (text: string): ExecInput => ({ kind: "stdin", data: Buffer.from(text) });

test("small pieces are joined, other inputs keep their place among them", async () => {
  const queue = new ExecInputQueue();
  await queue.add(stdin("a"));
  await queue.add(stdin("b"));
  await queue.add({ kind: "resize", rows: 1, columns: 2 });
  await queue.add(stdin("c"));
  await queue.add({ kind: "stdin_end" });
  queue.close();
  const seen: string[] = [];
  for (let item = await queue.take(); item !== undefined; item = await queue.take()) {
    seen.push(item.kind === "stdin" ? Buffer.from(item.data).toString() : item.kind);
  }
  assert.deepEqual(seen, ["ab", "resize", "c", "stdin_end"]);
});

test("input after a large piece is coalesced for a moment, unless it is the end", async () => {
  const queue = new ExecInputQueue();
  const large = Buffer.alloc(2048);
  await queue.add({ kind: "stdin", data: large });
  const sizes = async (): Promise<number> => {
    const item = await queue.take();
    return item?.kind === "stdin" ? item.data.length : -1;
  };
  assert.equal(await sizes(), 2048);
  await queue.add({ kind: "stdin", data: large });
  const second = sizes();
  await queue.add({ kind: "stdin", data: large });
  assert.equal(await second, 4096);
  await queue.add({ kind: "stdin", data: large });
  await queue.add({ kind: "stdin_end" });
  assert.equal(await sizes(), 2048);
  assert.equal(await sizes(), -1);
});

test("a caller that adds too much waits until something is taken or the queue is closed", async () => {
  const queue = new ExecInputQueue();
  let added = 0;
  const adding = (async () => {
    for (; added < 100; added++) await queue.add({ kind: "stdin", data: Buffer.alloc(chunkBytes) });
  })();
  await new Promise((resolve) => setImmediate(resolve));
  const before = added;
  assert.ok(before < 10, `${before}`);
  await queue.take();
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(added, before + 1);
  queue.close();
  await adding;
});

test("pieces of any size arrive as the same bytes in the same order, in pieces that the guest accepts", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.nat(150_000), { maxLength: 8 }), async (sizes) => {
      const queue = new ExecInputQueue();
      const all = Buffer.concat(sizes.map((size, index) => Buffer.alloc(size, `${index}`)));
      const adding = (async () => {
        let at = 0;
        for (const size of sizes) {
          await queue.add({ kind: "stdin", data: all.subarray(at, at + size) });
          at += size;
        }
        queue.close();
      })();
      const pieces: Uint8Array[] = [];
      for (let item = await queue.take(); item !== undefined; item = await queue.take()) {
        assert.equal(item.kind, "stdin");
        if (item.kind !== "stdin") continue;
        assert.ok(item.data.length <= chunkBytes);
        pieces.push(item.data);
      }
      await adding;
      assert.ok(Buffer.concat(pieces).equals(all));
    }),
    { numRuns: 50 },
  );
});
