import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, rm, stat, statfs, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { isInMemory } from "../../system/disk-space.ts";
import { claimScratchDisk, formatScratchDisk, keepSpareScratchDisk, promisedBytes } from "./scratch-disk.ts";

const mib = 1 << 20;

/** A base path with the directories of three VMs, and a folder for spares. */
async function basePath(context: TestContext) {
  const directory = await mkdtemp(join(tmpdir(), "litegix-scratch-"));
  context.after(() => rm(directory, { recursive: true }));
  const machines = ["first", "second", "third"].map((name) => join(directory, "vms", name));
  for (const machine of machines) await mkdir(machine, { recursive: true });
  return {
    disks: machines.map((machine) => join(machine, "scratch.ext4")) as [string, string, string],
    options: { machines, spareDirectory: join(directory, "spare"), minFreeMib: 0 },
  };
}

test("a VM takes the spare disk; without one of its size it makes its own", async (context) => {
  const { disks, options } = await basePath(context);
  await keepSpareScratchDisk({ ...options, sizeMib: 16 });
  await keepSpareScratchDisk({ ...options, sizeMib: 16 });
  const [spare = "", ...more] = await readdir(options.spareDirectory);
  assert.deepEqual(more, []);
  const { ino } = await stat(join(options.spareDirectory, spare));
  const [first, second, other] = disks;
  const formatted = await Promise.all(
    [first, second].map((path) => claimScratchDisk({ ...options, path, sizeMib: 16 })),
  );
  assert.equal(formatted.filter(Boolean).length, 1);
  const inodes = [(await stat(first)).ino, (await stat(second)).ino];
  assert.ok(inodes.includes(ino));
  assert.notEqual(inodes[0], inodes[1]);
  assert.equal(await claimScratchDisk({ ...options, path: other, sizeMib: 32 }), false);
  await formatScratchDisk({ path: other, sizeMib: 32 });
  const { size, blocks } = await stat(other);
  assert.equal(size, 32 * mib);
  // In memory the space would be memory in use.
  if (!(await isInMemory(other))) assert.ok(blocks * 512 >= size, "the file system has set the space aside");
  await assert.rejects(claimScratchDisk({ ...options, path: join(other, "no/such"), sizeMib: 16 }), {
    code: "scratch_disk",
  });
});

test("space that was promised to one VM is not given to another", async (context) => {
  const { disks, options } = await basePath(context);
  const [first, second, third] = disks;
  const { bavail, bsize } = await statfs(first.slice(0, first.lastIndexOf("/")));
  const freeMib = (bavail * bsize) / mib;
  // Sparse, as of a file system that sets nothing aside, and all of what is free but for 300 GiB.
  await writeFile(first, "");
  const promised = 64 * 1024;
  await truncate(first, promised * mib);
  assert.equal(promisedBytes(options.machines), promised * mib);
  const sizeMib = Math.floor(freeMib) - promised / 2;
  await keepSpareScratchDisk({ ...options, sizeMib: 16, minFreeMib: Math.floor(freeMib) });
  assert.deepEqual(await readdir(options.spareDirectory).catch(() => []), []);
  if (sizeMib > 0) await assert.rejects(claimScratchDisk({ ...options, path: second, sizeMib }), { code: "disk_full" });
  await rm(first);
  const tooMuch = { ...options, path: third, sizeMib: 1024, minFreeMib: Math.floor(freeMib) };
  await assert.rejects(claimScratchDisk(tooMuch), {
    code: "disk_full",
    message:
      /^the file system of \S+ is too full for the task's writable disk of 1024 MiB: it needs 1024 MiB, \d+ MiB are free, and \d+ MiB must stay so \(disk.min_free\): free space there, or stop tasks on this node, or ask for a smaller disk with storage_opt \(disk_full\)$/,
  });
});
