// The file system of an image, as a tree of headers only. Each names the layer's archive, and the position in it, that
// has the file's bytes. Two names of one file are two names of one object. A hard link therefore keeps its content,
// whatever an upper layer does to the name it was made from.
import { BadLayerError } from "../errors.ts";
import { shownName, type TarHeader } from "../tar/tar-entry.ts";

export interface DirectoryNode {
  readonly kind: "directory";
  /** Undefined for a parent that no layer has an entry for. */
  header: TarHeader | undefined;
  readonly children: Map<string, TreeNode>;
}

export interface LeafNode {
  readonly kind: "leaf";
  readonly header: TarHeader;
  readonly layerIndex: number;
  /** Position among all entries of the layer's archive, from 0. */
  readonly ordinal: number;
}

export type TreeNode = DirectoryNode | LeafNode;

/** As Linux's own limit (MAXSYMLINKS). */
const maxSymlinkHops = 40;

export function newDirectory(header?: TarHeader): DirectoryNode {
  return { kind: "directory", header, children: new Map() };
}

/** Splits a clean path that is not the root. */
export function splitPath(path: string): { readonly parent: string; readonly name: string } {
  const slash = path.lastIndexOf("/");
  return { parent: slash === -1 ? "" : path.slice(0, slash), name: path.slice(slash + 1) };
}

/**
 * Finds a directory, following symlinks inside the tree, as containerd does when it applies a layer: `bin/x` in an upper
 * layer lands in `usr/bin` where the layer below has `bin -> usr/bin`.
 * With `onCreate` it makes missing directories, replaces what stands in the way, and calls the function for each;
 * without it the result may be undefined. Fails with BadLayerError for a loop of symlinks.
 */
export function findDirectory(
  root: DirectoryNode,
  path: string,
  options: { readonly onCreate?: () => void } = {},
): DirectoryNode | undefined {
  const stack = [root];
  const queue = path.split("/").reverse();
  let hops = 0;
  for (let part = queue.pop(); part !== undefined; part = queue.pop()) {
    const current = stack.at(-1) ?? root;
    if (part === "" || part === ".") continue;
    if (part === "..") {
      if (stack.length > 1) stack.pop();
      continue;
    }
    const child = current.children.get(part);
    if (child?.kind === "directory") {
      stack.push(child);
    } else if (child?.header.type === "symlink") {
      hops++;
      if (hops > maxSymlinkHops) {
        throw new BadLayerError({ problem: `the directory ${shownName(path)} leads through a loop of symlinks` });
      }
      if (child.header.target.startsWith("/")) stack.length = 1;
      queue.push(...child.header.target.split("/").reverse());
    } else if (options.onCreate !== undefined) {
      options.onCreate();
      const made = newDirectory();
      current.children.set(part, made);
      stack.push(made);
    } else {
      return undefined;
    }
  }
  return stack.at(-1) ?? root;
}
