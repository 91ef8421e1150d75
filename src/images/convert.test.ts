import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { layerOf } from "../../test/fakes/fake-image.ts";
import { runCommand } from "../system/run-command.ts";
import { convertLayers } from "./convert.ts";
import { sha256 } from "./digest.ts";
import type { StoredLayer } from "./layer.ts";

let directory: string;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "litegix-convert-"));
});
after(() => rm(directory, { recursive: true }));

const newestSeconds = Date.UTC(2001, 1, 3, 4, 5, 6) / 1000;

/** The same incompressible bytes in every run. */
function noise(seed: string, sizeBytes: number): Buffer {
  return createHash("shake256", { outputLength: sizeBytes }).update(seed).digest();
}

async function stored(archive: Buffer): Promise<StoredLayer> {
  const digest = sha256(archive);
  const blobPath = join(directory, digest);
  await writeFile(blobPath, archive);
  return { blobPath, digest, diffId: digest };
}

/** The path of the squashfs. */
async function convert(layers: readonly StoredLayer[], name: string): Promise<string> {
  const outputPath = join(directory, name);
  const { signal } = new AbortController();
  await convertLayers({ reference: "example/app", layers, outputPath, mksquashfsPath: "mksquashfs", signal });
  return outputPath;
}

/** Files of many blocks and of less than one, links, attributes, and a directory that no layer has an entry for. */
async function variedLayers(): Promise<StoredLayer[]> {
  const small = Array.from({ length: 200 }, (_, index) => ({
    path: `small/${index}`,
    body: noise(`${index}`, index * 7),
  }));
  return [
    await stored(
      layerOf(
        { path: "small", type: "directory", mode: 0o755, mtime: 1 },
        ...small,
        { path: "big", body: noise("big", 1_500_000), mtime: newestSeconds },
        { path: "link", type: "hardlink", target: "big" },
        { path: "symlink", type: "symlink", target: "big" },
      ),
    ),
    await stored(
      layerOf(
        { path: "no/entry/for/it", body: Buffer.alloc(300_000), uid: 1000, gid: 1000 },
        { path: "capable", body: "x", xattrs: [{ name: "user.name", value: Buffer.from("value") }] },
        { path: "small/.wh.3" },
        { path: "device", type: "character", deviceMajor: 1, deviceMinor: 3 },
      ),
    ),
  ];
}

test("the same layers give the same bytes, and no time of the clock is among them", async () => {
  const layers = await variedLayers();
  const first = await convert(layers, "first");
  const bytes = await readFile(first);
  assert.equal(sha256(await readFile(await convert(layers, "second"))), sha256(bytes));
  // The superblock's time: two conversions within one second would not show the difference.
  assert.equal(bytes.readUInt32LE(8), newestSeconds);
  const { stdout } = await runCommand({ file: "unsquashfs", args: ["-UTC", "-lls", first], timeoutMs: 60_000 });
  const years = stdout.split("\n").flatMap((line) => / (\d{4})-\d\d-\d\d \d\d:\d\d /.exec(line)?.[1] ?? []);
  assert.ok(years.length > 200);
  assert.deepEqual([...new Set(years)].sort(), ["1970", "2001"]);
});

test("the times of an image from the future are kept", async () => {
  const mtime = 0xffff_fff0;
  const bytes = await readFile(await convert([await stored(layerOf({ path: "f", mtime }))], "future"));
  assert.equal(bytes.readUInt32LE(8), mtime);
});
