// Files and devices of the host that somebody names who need not be trusted with the host. The name is looked up once, beneath a
// directory that was allowed, and the descriptor stands for the file from then on: whatever takes the name later is not it.
//
// Node has no openat2(2). Each component is opened by itself, beneath the descriptor of the one before (/proc/self/fd/N/NAME) and
// without following a link. A link's text is looked up in the same way from its allowed root on, so a link that is exchanged
// meanwhile leads to another allowed file at most. The walk takes well under a millisecond; a program that calls openat2 takes more.
import { type BigIntStats, constants } from "node:fs";
import { type FileHandle, open, readlink } from "node:fs/promises";
import { join, resolve } from "node:path";

/** open(2): the descriptor stands for the file but reads nothing, and opening a device or a FIFO does not start it. */
const pathOnly = 0o10000000;
/** As many as the kernel follows (path_resolution(7)). */
const maxLinks = 40;

/** Dispose of it once the processes that need the file have it. */
export class HostFile implements AsyncDisposable {
  /** Without links. For messages: the file may have another name by now. */
  readonly path: string;
  readonly facts: BigIntStats;
  /** Opened with O_PATH. */
  readonly #handle: FileHandle;

  private constructor(path: string, handle: FileHandle, facts: BigIntStats) {
    this.path = path;
    this.#handle = handle;
    this.facts = facts;
  }

  static async from(path: string, handle: FileHandle): Promise<HostFile> {
    return new HostFile(path, handle, await handle.stat({ bigint: true }));
  }

  get descriptor(): number {
    return this.#handle.fd;
  }

  get kind(): "file" | "block device" | "other" {
    return this.facts.isFile() ? "file" : this.facts.isBlockDevice() ? "block device" : "other";
  }

  /** The same for all names of one file or one device. crates/shim/src/vm/drives.rs forms it too. */
  get identity(): string {
    const { facts } = this;
    return facts.isBlockDevice() ? `device ${facts.rdev}` : `file ${facts.dev}:${facts.ino}`;
  }

  /** This file's content, as much as it had when it was opened. Fails as open does, or if that is more than `maxBytes`. */
  async read(maxBytes: number): Promise<Buffer> {
    if (this.facts.size > maxBytes)
      throw new Error(`${this.path} has ${this.facts.size} bytes; the limit is ${maxBytes}`);
    await using handle = await open(inside(this.#handle), constants.O_RDONLY | constants.O_NONBLOCK);
    const content = Buffer.alloc(Number(this.facts.size));
    let length = 0;
    while (length < content.length) {
      const { bytesRead } = await handle.read(content, length, content.length - length, length);
      if (bytesRead === 0) break;
      length += bytesRead;
    }
    return content.subarray(0, length);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#handle.close();
  }
}

/**
 * Opens the file, which is one of `roots` or lies below one. Links on the way may lead from one root into another. Fails as
 * open(2) does, and with EXDEV, as openat2(2) does, if the path or a link leads out of all of them.
 */
export async function openBeneath(options: { path: string; roots: readonly string[] }): Promise<HostFile> {
  if (options.path.split("/").includes("..")) throw failure(options.path, "EXDEV");
  await using opened = new AsyncDisposableStack();
  const roots = await Promise.all(options.roots.map(openRoot));
  for (const { handle } of roots) if (handle !== undefined) opened.use(handle);
  let path = options.path;
  for (let links = 0; links <= maxLinks; links++) {
    const found = await lookUp(path, roots);
    if (typeof found !== "string") return found;
    path = found;
  }
  throw failure(options.path, "ELOOP");
}

interface Root {
  /** Undefined if it does not exist. */
  readonly handle: FileHandle | undefined;
  /** As it was given, and as the kernel knows it. */
  readonly names: readonly string[];
  /** Without links. */
  readonly path: string;
}

/** Links in a root's own path are followed: the operator who allows the path means the place where it leads. */
async function openRoot(given: string): Promise<Root> {
  const handle = await open(given, pathOnly).catch(() => undefined);
  const path = handle === undefined ? given : await readlink(inside(handle));
  return { handle, path, names: [given, path] };
}

/** The file, or the path to go on with if a link was met. */
async function lookUp(path: string, roots: readonly Root[]): Promise<HostFile | string> {
  const [root, nameLength] = rootOf(path, roots);
  const names = path
    .slice(nameLength)
    .split("/")
    .filter((part) => part !== "" && part !== ".");
  await using opened = new AsyncDisposableStack();
  if (root.handle === undefined) throw failure(path, "ENOENT");
  let at = root.handle;
  for (const [index, part] of names.entries()) {
    const next = opened.use(await open(inside(at, part), pathOnly | constants.O_NOFOLLOW));
    if ((await next.stat()).isSymbolicLink()) {
      const text = await readlink(inside(at, part));
      return join(resolve(root.path, ...names.slice(0, index), text), ...names.slice(index + 1));
    }
    at = next;
  }
  return await HostFile.from(join(root.path, ...names), await open(inside(at), pathOnly));
}

/** The root, and the length of its name in the path. */
function rootOf(path: string, roots: readonly Root[]): [root: Root, nameLength: number] {
  for (const root of roots) {
    for (const name of root.names) {
      const base = name.replace(/\/+$/, "");
      if (path === base || path.startsWith(`${base}/`)) return [root, base.length];
    }
  }
  throw failure(path, "EXDEV");
}

const failure = (path: string, code: string): NodeJS.ErrnoException =>
  Object.assign(new Error(`${code}: open '${path}'`), { code });

const inside = (handle: FileHandle, name = ""): string => `/proc/self/fd/${handle.fd}${name === "" ? "" : `/${name}`}`;
