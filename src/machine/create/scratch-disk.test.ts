import assert from "node:assert/strict";
import { mkdtemp, readdir, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { createScratchDisk, keepSpareScratchDisk } from "./scratch-disk.ts";

test("a VM takes the spare disk; without one of its size it makes its own", async (context) => {
  const directory = await mkdtemp(join(tmpdir(), "litegix-scratch-"));
  context.after(() => rm(directory, { recursive: true }));
  const spareDirectory = join(directory, "spare");
  await keepSpareScratchDisk({ spareDirectory, sizeMib: 16 });
  await keepSpareScratchDisk({ spareDirectory, sizeMib: 16 });
  const [spare = "", ...more] = await readdir(spareDirectory);
  assert.deepEqual(more, []);
  const { ino } = await stat(join(spareDirectory, spare));
  const [first, second, other] = ["first", "second", "other"].map((name) => join(directory, name)) as [
    string,
    string,
    string,
  ];
  await Promise.all([
    createScratchDisk({ path: first, sizeMib: 16, spareDirectory }),
    createScratchDisk({ path: second, sizeMib: 16, spareDirectory }),
  ]);
  const inodes = [(await stat(first)).ino, (await stat(second)).ino];
  assert.ok(inodes.includes(ino));
  assert.notEqual(inodes[0], inodes[1]);
  await createScratchDisk({ path: other, sizeMib: 32, spareDirectory });
  assert.equal((await stat(other)).size, 32 * 1024 * 1024);
  await assert.rejects(createScratchDisk({ path: join(directory, "no/such"), sizeMib: 16, spareDirectory }));
});
