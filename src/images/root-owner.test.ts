import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { layerOf } from "../../test/fakes/fake-image.ts";
import { runCommand } from "../system/run-command.ts";
import { giveRootDirectory } from "./root-owner.ts";

let directory: string;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "litegix-owner-"));
});
after(() => rm(directory, { recursive: true }));

async function ownersOf(path: string): Promise<string[]> {
  const { stdout } = await runCommand({ file: "unsquashfs", args: ["-lln", path] });
  return stdout.split("\n").flatMap((line) => /^\S+ (\d+\/\d+) .* (\S+)$/.exec(line)?.slice(1).join(" ") ?? []);
}

test("the root directory becomes user 0's, and nothing else changes", async () => {
  const path = join(directory, "disk");
  const files = Array.from({ length: 3_000 }, (_, index) => ({ path: `${index}`, uid: index, gid: 100_000 + index }));
  await runCommand({
    file: "mksquashfs",
    // The root directory, as if user 77777 had made it.
    args: ["-", path, "-tar", "-noappend", "-quiet", "-no-progress", "-noId", "-comp", "zstd"],
    input: layerOf(...files, { path: "made", uid: 77_777, gid: 77_777, type: "directory" }),
  });
  const before = await ownersOf(path);
  assert.ok(before.includes("77777/77777 squashfs-root/made"));
  await giveRootDirectory({ path, owner: 77_777 });
  const expected = before.map((line) => line.replace("77777/77777", "0/0"));
  assert.deepEqual(await ownersOf(path), expected);
});

test("anything but such a squashfs is an error", async () => {
  const path = join(directory, "short");
  await writeFile(path, "short");
  await assert.rejects(giveRootDirectory({ path, owner: 1 }), /truncated disk/);
});
