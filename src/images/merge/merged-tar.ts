// Writes the merged tree as one tar stream for mksquashfs: directories, links and devices first, straight from the
// headers, then the files' bytes in one pass over each layer that still has a visible file. The order depends on the
// image alone, so that the same image gives the same bytes.
import { BadLayerError } from "../errors.ts";
import type { ImageBudget } from "../image-budget.ts";
import { encodeTarHeader } from "../tar/encode-tar-header.ts";
import { padding, type TarEntry } from "../tar/read-tar.ts";
import { shownName, type TarHeader } from "../tar/tar-entry.ts";
import { maxPathBytes } from "../tar/tar-path.ts";
import type { DirectoryNode, LeafNode } from "./file-tree.ts";

const batchBytes = 256 * 1024;
const endOfArchive = Buffer.alloc(1024);

const missingParent: TarHeader = {
  path: "",
  type: "directory",
  mode: 0o755,
  uid: 0,
  gid: 0,
  mtime: 0,
  sizeBytes: 0,
  target: "",
  deviceMajor: 0,
  deviceMinor: 0,
  xattrs: [],
};

export function mergedTar(options: {
  readonly root: DirectoryNode;
  readonly budget: ImageBudget;
  /** Opens a layer again, from its first entry. */
  readonly openLayer: (layerIndex: number) => AsyncIterable<TarEntry>;
}): AsyncGenerator<Buffer> {
  return inBatches(pieces(options));
}

async function* pieces(options: Parameters<typeof mergedTar>[0]): AsyncGenerator<Buffer> {
  const withContent = new Map<LeafNode, string[]>();
  const found: Found = { budget: options.budget, firstNames: new Map(), withContent };
  yield* withoutContent(options.root, "", found);
  const layerIndexes = new Set([...withContent.keys()].map((leaf) => leaf.layerIndex));
  for (const layerIndex of [...layerIndexes].sort((a, b) => a - b)) {
    const wanted = new Map<number, { readonly leaf: LeafNode; readonly names: readonly string[] }>();
    for (const [leaf, names] of withContent) {
      if (leaf.layerIndex === layerIndex) wanted.set(leaf.ordinal, { leaf, names });
    }
    yield* layerContents(options.openLayer(layerIndex), wanted);
  }
  yield endOfArchive;
}

interface Found {
  readonly budget: ImageBudget;
  readonly firstNames: Map<LeafNode, string>;
  /** The names of files with bytes. */
  readonly withContent: Map<LeafNode, string[]>;
}

/** The whole tree except files with bytes, whose names it collects. */
function* withoutContent(directory: DirectoryNode, path: string, found: Found): Generator<Buffer> {
  const { budget, firstNames, withContent } = found;
  const names = [...directory.children.keys()].sort();
  for (const name of names) {
    const child = directory.children.get(name);
    const childPath = path === "" ? name : `${path}/${name}`;
    if (child === undefined) continue;
    // Each name was checked, but symlinks can lead names together into one too long for any kernel.
    if (childPath.length > maxPathBytes) {
      throw new BadLayerError({ problem: `the merged path ${shownName(childPath)} is too long` });
    }
    if (child.kind === "directory") {
      yield encode(child.header ?? missingParent, childPath);
      yield* withoutContent(child, childPath, found);
    } else if (child.header.sizeBytes > 0) {
      budget.addMergedName(childPath);
      const others = withContent.get(child);
      if (others === undefined) withContent.set(child, [childPath]);
      else others.push(childPath);
    } else {
      budget.addMergedName(childPath);
      const first = firstNames.get(child);
      yield first === undefined ? encode(child.header, childPath) : encodeLink(child.header, childPath, first);
      firstNames.set(child, first ?? childPath);
    }
  }
}

async function* layerContents(
  entries: AsyncIterable<TarEntry>,
  wanted: ReadonlyMap<number, { readonly leaf: LeafNode; readonly names: readonly string[] }>,
): AsyncGenerator<Buffer> {
  let ordinal = 0;
  let missing = wanted.size;
  for await (const entry of entries) {
    const found = wanted.get(ordinal);
    ordinal++;
    if (found === undefined) continue;
    if (entry.header.sizeBytes !== found.leaf.header.sizeBytes) throw changed();
    const [first = "", ...others] = found.names;
    yield encode(found.leaf.header, first);
    yield* entry.body();
    yield Buffer.alloc(padding(entry.header.sizeBytes));
    for (const other of others) yield encodeLink(found.leaf.header, other, first);
    missing--;
  }
  if (missing > 0) throw changed();
}

function encode(header: TarHeader, path: string): Buffer {
  return encodeTarHeader({ ...header, path });
}

function encodeLink(header: TarHeader, path: string, target: string): Buffer {
  return encodeTarHeader({ ...header, path, target, type: "hardlink", sizeBytes: 0, xattrs: [] });
}

function changed(): BadLayerError {
  return new BadLayerError({ problem: "the stored layer changed while it was read" });
}

/** Joins small pieces: a write a header would cost more than the merge itself. */
async function* inBatches(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let batch: Buffer[] = [];
  let sizeBytes = 0;
  for await (const piece of source) {
    batch.push(piece);
    sizeBytes += piece.length;
    if (sizeBytes >= batchBytes) {
      yield Buffer.concat(batch);
      batch = [];
      sizeBytes = 0;
    }
  }
  yield Buffer.concat(batch);
}
