import assert from "node:assert/strict";
import { mkdtempDisposable, readdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { StoreFiles } from "./store-files.ts";

test("a transfer that breaks off before its file exists leaves none", async () => {
  await using directory = await mkdtempDisposable(join(tmpdir(), "store-"));
  const files = new StoreFiles(directory.path);
  await files.prepare();
  const { signal } = new AbortController();
  async function* broken(): AsyncGenerator<Uint8Array> {
    yield* [];
    throw new Error("broken off");
  }
  // Many at once, so that opening and removing overtake each other.
  for (let round = 0; round < 5; round++) {
    const writes = Array.from({ length: 500 }, () => files.write(join(directory.path, "x"), broken(), signal));
    for (const { status } of await Promise.allSettled(writes)) assert.equal(status, "rejected");
  }
  // Waits for the kernel's pending work.
  await delay(50);
  assert.deepEqual(await readdir(join(directory.path, "tmp")), []);
});
