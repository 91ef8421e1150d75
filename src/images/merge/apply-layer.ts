// Applies one layer's headers to the tree of the layers below it (OCI image spec, layer.md, "Applying changesets").
// Whiteouts act only on lower layers, so they go first, wherever in the archive they stand.
import { BadLayerError } from "../errors.ts";
import type { ImageBudget } from "../image-budget.ts";
import { shownName, type TarHeader } from "../tar/tar-entry.ts";
import { type DirectoryNode, findDirectory, newDirectory, splitPath } from "./file-tree.ts";

const whiteoutMark = ".wh.";
/** AUFS's own bookkeeping has this prefix; only the opaque mark means anything elsewhere. */
const aufsPrefix = ".wh..wh.";
const opaqueMark = ".wh..wh..opq";

/** Fails with ImageLimitError, and with BadLayerError for a link to nothing, a root that is not a directory, a whiteout of `.` or `..`. */
export function applyLayer(options: {
  readonly root: DirectoryNode;
  readonly headers: readonly TarHeader[];
  readonly layerIndex: number;
  readonly budget: ImageBudget;
}): void {
  const { root, headers, layerIndex, budget } = options;
  const onCreate = (): void => budget.addFile();
  for (const header of headers) applyWhiteout(root, header);
  for (const [ordinal, header] of headers.entries()) {
    if (!isWhiteout(header.path)) applyEntry({ root, header, layerIndex, ordinal, onCreate });
  }
}

/** A whiteout of a directory may have entries below it in sloppy archives: any part may carry the mark. */
function isWhiteout(path: string): boolean {
  return path.startsWith(whiteoutMark) || path.includes(`/${whiteoutMark}`);
}

function applyWhiteout(root: DirectoryNode, header: TarHeader): void {
  const { parent, name } = splitPath(header.path);
  if (!name.startsWith(whiteoutMark) || isWhiteout(parent)) return;
  const directory = findDirectory(root, parent);
  if (name === opaqueMark) {
    directory?.children.clear();
    return;
  }
  if (name.startsWith(aufsPrefix)) return;
  const hidden = name.slice(whiteoutMark.length);
  if (hidden === "" || hidden === "." || hidden === "..") {
    throw new BadLayerError({ problem: `the whiteout ${shownName(header.path)} names no file` });
  }
  directory?.children.delete(hidden);
}

function applyEntry(entry: {
  readonly root: DirectoryNode;
  readonly header: TarHeader;
  readonly layerIndex: number;
  readonly ordinal: number;
  readonly onCreate: () => void;
}): void {
  const { root, header, layerIndex, ordinal, onCreate } = entry;
  if (header.path === "") {
    if (header.type !== "directory") throw new BadLayerError({ problem: `the root directory is a ${header.type}` });
    return;
  }
  const { parent, name } = splitPath(header.path);
  // The target first: making the parent may replace what stands in its way.
  const target = header.type === "hardlink" ? linkedFile(root, header) : undefined;
  const directory = findDirectory(root, parent, { onCreate });
  if (directory === undefined) return;
  if (target !== undefined) {
    directory.children.set(name, target);
    return;
  }
  const existing = directory.children.get(name);
  if (header.type !== "directory") {
    directory.children.set(name, { kind: "leaf", header, layerIndex, ordinal });
  } else if (existing?.kind === "directory") {
    existing.header = header;
  } else {
    directory.children.set(name, newDirectory(header));
  }
}

function linkedFile(root: DirectoryNode, header: TarHeader) {
  const { parent, name } = splitPath(header.target);
  const target = findDirectory(root, parent)?.children.get(name);
  if (target?.kind !== "leaf") {
    const what = target === undefined ? "a file that does not exist" : "a directory";
    throw new BadLayerError({
      problem: `${shownName(header.path)} is a hard link to ${what}, ${shownName(header.target)}`,
    });
  }
  return target;
}
