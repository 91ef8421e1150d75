import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { decompressBlock, decompressLz4Legacy, Lz4FormatError } from "./lz4-legacy.ts";

/** Literals only: the simplest valid encoder. */
function literalBlock(data: Uint8Array): Buffer {
  const extra: number[] = [];
  if (data.length >= 15) {
    let rest = data.length - 15;
    for (; rest >= 255; rest -= 255) extra.push(255);
    extra.push(rest);
  }
  return Buffer.concat([Buffer.from([Math.min(data.length, 15) << 4, ...extra]), data]);
}

function frame(...blocks: Buffer[]): Buffer {
  const parts = blocks.flatMap((block) => {
    const size = Buffer.alloc(4);
    size.writeUInt32LE(block.length);
    return [size, block];
  });
  return Buffer.concat([Buffer.from("02214c18", "hex"), ...parts, Buffer.from([9, 9, 9, 9])]);
}

test("gives back what literals hold, block after block, and ignores the kernel's size word", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.uint8Array({ minLength: 1, maxLength: 600 }), { minLength: 1, maxLength: 3 }),
      async (data) => {
        const output = await decompressLz4Legacy(frame(...data.map(literalBlock)));
        assert.deepEqual(output, Buffer.concat(data));
      },
    ),
  );
});

test("repeats overlapping matches", () => {
  // "ab", then 8 bytes from 2 back, then the literal "c".
  const block = Buffer.from([0x24, 0x61, 0x62, 2, 0, 0x10, 0x63]);
  const output = Buffer.alloc(64);
  assert.equal(output.toString("latin1", 0, decompressBlock(block, output)), "ababababab" + "c");
});

test("damaged data is an error, never a crash or a read outside", () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 200 }), (data) => {
      const output = new Uint8Array(1024);
      try {
        assert.ok(decompressBlock(data, output) <= output.length);
      } catch (error) {
        assert.ok(error instanceof Lz4FormatError);
      }
    }),
  );
});

test("refuses what is no legacy frame", async () => {
  await assert.rejects(decompressLz4Legacy(Buffer.from("04224d1800000000", "hex")), Lz4FormatError);
});
