// The store's paths. A file appears there whole, or not at all.
import { randomBytes } from "node:crypto";
import { constants } from "node:fs";
import { chmod, mkdir, open, readdir, rename, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { writeFileAtomically } from "../../system/files.ts";
import { isAlive, ownIdentity } from "../../system/processes.ts";
import { converterVersion } from "../convert.ts";
import { digestHex, sha256 } from "../digest.ts";

export class StoreFiles {
  readonly directory: string;

  constructor(directory: string) {
    this.directory = directory;
  }

  blob(digest: string): string {
    return join(this.directory, "blobs/sha256", digestHex(digest));
  }

  squashfs(chainId: string): string {
    return join(this.directory, "squashfs", `${digestHex(chainId)}-v${converterVersion}.squashfs`);
  }

  ref(canonicalReference: string): string {
    return join(this.directory, "refs", `${digestHex(sha256(canonicalReference))}.json`);
  }

  /** Held while the chain's squashfs is made. */
  lock(chainId: string): string {
    return join(this.directory, "locks", digestHex(chainId));
  }

  /** It says who may use a blob or a chain. */
  access(digest: string): string {
    return join(this.directory, "access", `${digestHex(digest)}.json`);
  }

  async prepare(): Promise<void> {
    await mkdir(this.directory, { recursive: true });
    await chmod(this.directory, 0o700);
    for (const name of ["blobs/sha256", "squashfs", "refs", "access", "locks", "tmp"]) {
      await mkdir(join(this.directory, name), { recursive: true, mode: 0o700 });
    }
  }

  /** A name in `tmp` that names its process: `removeStale` recognises the files of dead ones. */
  async temporary(): Promise<string> {
    const { pid, startTime } = await ownIdentity();
    return join(this.directory, "tmp", `${pid}-${startTime}-${randomBytes(4).toString("hex")}`);
  }

  /** A directory that disappears at disposal. */
  async scratch(): Promise<AsyncDisposable & { readonly path: string }> {
    const path = await this.temporary();
    await mkdir(path, { mode: 0o700 });
    return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
  }

  async removeStale(): Promise<void> {
    const directory = join(this.directory, "tmp");
    for (const name of await readdir(directory)) {
      const [pid = "", startTime = ""] = name.split("-");
      if (!(await isAlive({ pid: Number(pid), startTime }))) {
        await rm(join(directory, name), { force: true, recursive: true });
      }
    }
  }

  /** The file is whole and on the disk, or not there. */
  async write(path: string, content: string | AsyncIterable<Uint8Array>, signal?: AbortSignal): Promise<void> {
    await writeFileAtomically({ path, content, temporaryPath: await this.temporary(), durable: true, signal });
  }

  /**
   * Takes a file out of a scratch directory that another user may write: by a name that only root reaches, then by its
   * descriptor. It must be a plain file with one name. Forces it to the disk.
   */
  async adopt(source: string, path: string, mode: number): Promise<void> {
    const held = await this.temporary();
    await rename(source, held);
    try {
      await using file = await open(held, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
      const facts = await file.stat();
      if (!facts.isFile() || facts.nlink !== 1) throw new Error(`${basename(source)} is not a plain file`);
      if (facts.uid !== process.getuid?.()) await file.chown(process.getuid?.() ?? 0, process.getgid?.() ?? 0);
      await file.chmod(mode);
      await file.sync();
      await rename(held, path);
    } catch (error) {
      await rm(held, { force: true, recursive: true });
      throw error;
    }
  }
}
