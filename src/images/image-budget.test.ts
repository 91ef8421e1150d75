import assert from "node:assert/strict";
import { Readable } from "node:stream";
import { test } from "node:test";
import fc from "fast-check";
import { type LayerMember, layerOf, plainHeader } from "../../test/fakes/fake-image.ts";
import { BadLayerError, ImageLimitError } from "./errors.ts";
import { ImageBudget } from "./image-budget.ts";
import { applyLayer } from "./merge/apply-layer.ts";
import { type DirectoryNode, newDirectory, type TreeNode } from "./merge/file-tree.ts";
import { mergedTar } from "./merge/merged-tar.ts";
import { readTar } from "./tar/read-tar.ts";
import type { TarHeader } from "./tar/tar-entry.ts";

/** The tree of one layer, with all that a conversion counts on its way. */
async function build(budget: ImageBudget, members: readonly LayerMember[]): Promise<DirectoryNode> {
  const archive = layerOf(...members);
  const open = () => readTar(Readable.from([archive]));
  const headers: TarHeader[] = [];
  budget.beginLayer("sha256:layer");
  for await (const { header } of open()) {
    budget.addEntry(header);
    headers.push(header);
  }
  const root = newDirectory();
  applyLayer({ root, headers, layerIndex: 0, budget });
  for await (const _ of mergedTar({ root, budget, openLayer: open }));
  return root;
}

/** Bytes and nodes that a tree holds, counted from the tree itself. */
function held(node: TreeNode): { textBytes: number; nodes: number } {
  const { header } = node;
  const sum = { textBytes: (header?.path.length ?? 0) + (header?.target.length ?? 0), nodes: 1 };
  for (const { name, value } of header?.xattrs ?? []) sum.textBytes += name.length + value.length;
  for (const child of node.kind === "directory" ? node.children.values() : []) {
    const inner = held(child);
    sum.textBytes += inner.textBytes;
    sum.nodes += inner.nodes;
  }
  return sum;
}

const part = fc.stringMatching(/^[a-c]{1,3}$/);
const path = fc.array(part, { minLength: 1, maxLength: 6 }).map((parts) => parts.join("/"));
const member: fc.Arbitrary<LayerMember> = fc.oneof(
  fc.record({ path, body: fc.constantFrom("", "x") }),
  fc.record({ path, type: fc.constant("symlink" as const), target: path }),
  fc.record({
    path,
    xattrs: fc.array(
      fc.record({ name: fc.constantFrom("user.a", "trusted.b"), value: fc.constant(Buffer.alloc(100)) }),
      { maxLength: 1 },
    ),
  }),
);

test("whatever the layer, no tree holds more than its account allows", async () => {
  const bounds = { layerTextBytes: 500, imageTextBytes: 500, files: 30 };
  await fc.assert(
    fc.asyncProperty(fc.array(member, { maxLength: 25 }), async (members) => {
      let root: DirectoryNode;
      try {
        root = await build(new ImageBudget(bounds), members);
      } catch (error) {
        assert.ok(error instanceof ImageLimitError || error instanceof BadLayerError, String(error));
        return;
      }
      const { textBytes, nodes } = held(root);
      assert.ok(textBytes <= bounds.layerTextBytes, `${textBytes} bytes`);
      assert.ok(nodes - 1 <= bounds.files, `${nodes} nodes`);
    }),
  );
});

const limit = (problem: RegExp): ((error: unknown) => true) => {
  return (error) => {
    assert.ok(error instanceof ImageLimitError, String(error));
    assert.equal(error.code, "image_limit");
    assert.match(error.message, problem);
    return true;
  };
};

test("one link to a deep directory, under many names, is many directories", async () => {
  const deep = { path: "deep", type: "symlink" as const, target: "a/".repeat(500) };
  const uses = Array.from({ length: 10 }, (_, index): LayerMember[] => [
    { path: `${index}/link`, type: "hardlink", target: "deep" },
    { path: `${index}/link/x` },
  ]).flat();
  await build(new ImageBudget({ files: 5_100 }), [deep, ...uses]);
  const refused = build(new ImageBudget({ files: 5_000 }), [deep, ...uses]);
  await assert.rejects(refused, limit(/^layer sha256:layer: the image has more than 5000 files and directories/));
});

test("one link to a deep directory makes all names below it long", async () => {
  const members: LayerMember[] = [
    { path: "s", type: "symlink", target: "long-name/".repeat(100) },
    ...Array.from({ length: 20 }, (_, index) => ({ path: `s/${index}`, body: "x" })),
  ];
  await build(new ImageBudget({ mergedNameBytes: 2 ** 15 }), members);
  const refused = build(new ImageBudget({ mergedNameBytes: 2 ** 14 }), members);
  await assert.rejects(refused, limit(/^the names of the image's files have more than 0.015625 MiB/));
});

test("attributes count, of a layer and of all layers together", () => {
  const xattrs = [{ name: "user.x", value: Buffer.alloc(60_000) }];
  const header: TarHeader = { ...plainHeader, path: "f", xattrs };
  const budget = new ImageBudget();
  const layers = (count: number, entries: number): void => {
    for (let layer = 0; layer < count; layer++) {
      budget.beginLayer(`sha256:${layer}`);
      for (let entry = 0; entry < entries; entry++) budget.addEntry(header);
    }
  };
  assert.throws(() => layers(1, 1_200), limit(/layer sha256:0: its names, links .* more than 64 MiB/));
  assert.throws(() => layers(2, 1_000), limit(/the image's names, links .* more than 128 MiB/));
});
