// The store's paths. A file appears there whole, or not at all.
import { randomBytes } from "node:crypto";
import { mkdir, open, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { writeFileAtomically } from "../../system/files.ts";
import { isAlive, ownIdentity } from "../../system/processes.ts";
import { digestHex, sha256 } from "../digest.ts";
import { converterVersion } from "./convert.ts";

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

  async prepare(): Promise<void> {
    for (const name of ["blobs/sha256", "squashfs", "refs", "locks", "tmp"]) {
      await mkdir(join(this.directory, name), { recursive: true, mode: 0o700 });
    }
  }

  /** A name in `tmp` that names its process: `removeStale` recognises the files of dead ones. */
  async temporary(): Promise<string> {
    const { pid, startTime } = await ownIdentity();
    return join(this.directory, "tmp", `${pid}-${startTime}-${randomBytes(4).toString("hex")}`);
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

  /** Forces a finished temporary file to the disk and gives it its name. */
  async publish(temporary: string, path: string): Promise<void> {
    await using file = await open(temporary, "r");
    await file.sync();
    await rename(temporary, path);
  }
}
