import assert from "node:assert/strict";
import { test } from "node:test";
import { type LayerMember, layerOf } from "../../../test/fakes/fake-image.ts";
import { BadLayerError } from "../errors.ts";
import { ImageBudget } from "../image-budget.ts";
import { readTar } from "../tar/read-tar.ts";
import type { TarHeader } from "../tar/tar-entry.ts";
import { applyLayer } from "./apply-layer.ts";
import { newDirectory } from "./file-tree.ts";
import { mergedTar } from "./merged-tar.ts";

const file = (path: string, body = "", more: Partial<TarHeader> = {}): LayerMember => ({ path, body, ...more });
const dir = (path: string, more: Partial<TarHeader> = {}): LayerMember => ({
  path,
  type: "directory",
  mode: 0o755,
  ...more,
});
const link = (path: string, target: string): LayerMember => ({ path, type: "hardlink", target });
const symlink = (path: string, target: string): LayerMember => ({ path, type: "symlink", target });

async function* once(data: Buffer): AsyncGenerator<Buffer> {
  yield data;
}

/** Lower layer first; gives `path: content` as one unpacking the merged archive in its order would see it. */
async function merge(...layers: readonly (readonly LayerMember[])[]): Promise<Record<string, string>> {
  const archives = layers.map((members) => layerOf(...members));
  const root = newDirectory();
  const budget = new ImageBudget();
  for (const [layerIndex, data] of archives.entries()) {
    const headers: TarHeader[] = [];
    for await (const { header } of readTar(once(data))) headers.push(header);
    applyLayer({ root, headers, layerIndex, budget });
  }
  const result: Record<string, string> = {};
  const openLayer = (layerIndex: number) => readTar(once(archives[layerIndex] ?? Buffer.alloc(0)));
  for await (const { header, body } of readTar(mergedTar({ root, budget, openLayer }))) {
    assert.ok(!(header.path in result), `${header.path} is written twice`);
    const parent = header.path.slice(0, Math.max(0, header.path.lastIndexOf("/")));
    assert.ok(parent === "" || result[parent]?.startsWith("directory"), `${header.path} comes before its parent`);
    let content = "";
    for await (const piece of body()) content += piece.toString();
    if (header.type === "hardlink") {
      content = result[header.target] ?? assert.fail(`${header.path} links to what is not yet there`);
    } else if (header.type === "symlink") {
      content = `-> ${header.target}`;
    } else if (header.type === "directory") {
      content = `directory ${header.mode.toString(8)}`;
    }
    result[header.path] = content;
  }
  return result;
}

test("an upper layer adds and replaces", async () => {
  assert.deepEqual(await merge([file("a", "1"), file("b", "1")], [file("b", "two"), file("c", "2")]), {
    a: "1",
    b: "two",
    c: "2",
  });
});

test("missing parents are made, directories take the upper metadata and keep their children", async () => {
  assert.deepEqual(await merge([file("x/y/z", "1"), dir("d"), file("d/f", "1")], [dir("d", { mode: 0o700 })]), {
    x: "directory 755",
    "x/y": "directory 755",
    "x/y/z": "1",
    d: "directory 700",
    "d/f": "1",
  });
});

test("whiteouts hide files and trees of lower layers only, wherever in the archive they stand", async () => {
  const lower = [file("a", "1"), dir("d"), file("d/f", "1"), dir("e"), file("e/f", "1")];
  assert.deepEqual(await merge(lower, [file(".wh.a"), file(".wh.d"), file("e/.wh.f"), file("e/.wh.missing")]), {
    e: "directory 755",
  });
  assert.deepEqual(
    await merge(lower, [file("a", "new"), file(".wh.a"), file("nowhere/.wh.x")], [file(".wh.d"), file(".wh.e")]),
    {
      a: "new",
    },
  );
  assert.deepEqual(await merge([file(".wh.a"), file("a", "own layer")]), { a: "own layer" });
});

test("an opaque directory hides what lies below it, not its own layer's files", async () => {
  const lower = [dir("d"), file("d/old", "1"), dir("d/sub"), file("d/sub/old", "1")];
  assert.deepEqual(await merge(lower, [dir("d"), file("d/new", "2"), file("d/.wh..wh..opq")]), {
    d: "directory 755",
    "d/new": "2",
  });
  assert.deepEqual(await merge(lower, [file(".wh..wh..opq"), file("x", "2")]), { x: "2" });
  assert.deepEqual(await merge(lower, [file(".wh..wh.plnk"), file("d/.wh..wh.aufs")]), await merge(lower));
});

test("a file over a directory hides the tree, a directory over a file starts empty", async () => {
  assert.deepEqual(await merge([dir("d"), file("d/f", "1")], [file("d", "2")]), { d: "2" });
  assert.deepEqual(await merge([file("d", "1")], [file("d/f", "2")]), { d: "directory 755", "d/f": "2" });
  assert.deepEqual(await merge([dir("d"), file("d/f", "1")], [symlink("d", "else")], [dir("d")]), {
    d: "directory 755",
  });
});

test("the last entry of a name in one layer counts", async () => {
  assert.deepEqual(await merge([file("a", "1"), file("a", "22"), file("b", "3"), symlink("b", "a")]), {
    a: "22",
    b: "-> a",
  });
});

test("a hard link keeps its content when its target is replaced, removed or renamed", async () => {
  const lower = [file("target", "old"), link("link", "target")];
  assert.deepEqual(await merge(lower), { target: "old", link: "old" });
  assert.deepEqual(await merge(lower, [file("target", "new")]), { target: "new", link: "old" });
  assert.deepEqual(await merge(lower, [file(".wh.target")]), { link: "old" });
  assert.deepEqual(await merge(lower, [file(".wh.link")]), { target: "old" });
  assert.deepEqual(await merge([file("a", "1"), file("z", "2")], [link("m", "a"), link("n", "z")], [file(".wh.a")]), {
    m: "1",
    n: "2",
    z: "2",
  });
  assert.deepEqual(await merge([file("empty"), link("link", "empty")], [file("empty", "now full")]), {
    empty: "now full",
    link: "",
  });
  assert.deepEqual(await merge([file("a", "1"), link("a", "a")]), { a: "1" });
});

test("a hard link to nothing, to a directory or to a lower layer's removed file is an error", async () => {
  await assert.rejects(merge([link("l", "none")]), BadLayerError);
  await assert.rejects(merge([dir("d"), link("l", "d")]), /hard link to a directory/);
  await assert.rejects(merge([file("a", "1")], [file(".wh.a")], [link("l", "a")]), /does not exist/);
});

test("names lead through symlinks of lower layers, inside the image only", async () => {
  const lower = [
    dir("usr"),
    dir("usr/bin"),
    file("usr/bin/sh", "1"),
    symlink("bin", "usr/bin"),
    symlink("abs", "/../usr"),
  ];
  assert.deepEqual(
    await merge(lower, [file("bin/new", "2"), file("bin/.wh.sh"), file("abs/x", "3"), link("l", "bin/new")]),
    {
      usr: "directory 755",
      "usr/bin": "directory 755",
      "usr/bin/new": "2",
      "usr/x": "3",
      bin: "-> usr/bin",
      abs: "-> /../usr",
      l: "2",
    },
  );
  await assert.rejects(merge([symlink("a", "b"), symlink("b", "a")], [file("a/x", "1")]), /loop of symlinks/);
});

test("the root's own entry makes no entry, and must be a directory", async () => {
  assert.deepEqual(await merge([dir("./"), file("./a", "1")]), { a: "1" });
  assert.deepEqual(await merge(), {});
  await assert.rejects(merge([symlink("./", "x")]), /root directory is a symlink/);
  await assert.rejects(merge([file("d/.wh...")]), /names no file/);
});

test("a tree as deep as a path can be is written; one made deeper through symlinks is refused", async () => {
  const deep = "d/".repeat(2_000);
  assert.equal(Object.keys(await merge([file(`${deep}f`, "1")])).length, 2_001);
  await assert.rejects(merge([dir(deep), symlink("s", deep), file(`s/${deep}f`, "1")]), /is too long/);
});
