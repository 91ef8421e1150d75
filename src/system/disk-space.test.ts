import assert from "node:assert/strict";
import { mkdtemp, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { freeBytes, keepingSpaceFree, keepsReservedSpace, reserveFile } from "./disk-space.ts";

const need = { path: tmpdir(), what: "a test", neededBytes: 0, signal: new AbortController().signal };

test("work that is done before the space runs out is not disturbed; a failure stays its own", async () => {
  assert.equal(await keepingSpaceFree({ ...need, minFreeBytes: 0 }, async () => 7), 7);
  const failure = new Error("mine");
  await assert.rejects(
    keepingSpaceFree({ ...need, minFreeBytes: 0 }, () => Promise.reject(failure)),
    failure,
  );
});

test("work is aborted once less than the floor is free", async (context) => {
  const directory = await mkdtemp(join(tmpdir(), "litegix-space-"));
  context.after(() => rm(directory, { recursive: true }));
  const minFreeBytes = (await freeBytes(directory)) - (64 << 20);
  const work = async (signal: AbortSignal): Promise<never> => {
    await writeFile(join(directory, "big"), Buffer.alloc(256 << 20));
    return await delay(60_000, undefined as never, { signal });
  };
  await assert.rejects(keepingSpaceFree({ ...need, path: directory, minFreeBytes }, work), { code: "disk_full" });
});

test("a file's space is set aside, if the file system can do that", async (context) => {
  const directory = await mkdtemp(join(tmpdir(), "litegix-space-"));
  context.after(() => rm(directory, { recursive: true }));
  const path = join(directory, "file");
  await writeFile(path, "");
  assert.equal(await keepsReservedSpace(directory), await reserveFile({ path, sizeBytes: 1 << 20 }));
  assert.ok([0, 1 << 20].includes((await stat(path)).size));
  await assert.rejects(reserveFile({ path, sizeBytes: 2 ** 50 }), /fallocate/);
  assert.equal(await reserveFile({ path: "/proc/self/status", sizeBytes: 4096 }).catch(() => false), false);
});
