import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, stat, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { ensureContent } from "./files.ts";

test("a file gets its content once, and again if somebody exchanges it for one of the same size and time", async (context) => {
  const directory = await mkdtemp(join(tmpdir(), "litegix-files-"));
  context.after(() => rm(directory, { recursive: true }));
  const path = join(directory, "bin/program");
  const ensure = (): Promise<void> => ensureContent({ path, content: Buffer.from("good"), mode: 0o755 });
  await ensure();
  const first = await stat(path);
  assert.equal(first.mode & 0o777, 0o755);
  await ensure();
  assert.equal((await stat(path)).ino, first.ino);
  await writeFile(path, "evil");
  await utimes(path, first.atime, first.mtime);
  await ensure();
  assert.equal(await readFile(path, "utf8"), "good");
});
