// Where the store keeps what, and how files get there: whole, or not at all.
import { createHash, randomBytes } from "node:crypto";
import { mkdir, open, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { isAlive, ownIdentity } from "../../system/processes.ts";
import { digestHex } from "../digest.ts";
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
    return join(this.directory, "refs", `${createHash("sha256").update(canonicalReference).digest("hex")}.json`);
  }

  async prepare(): Promise<void> {
    for (const name of ["blobs/sha256", "squashfs", "refs", "tmp"]) {
      await mkdir(join(this.directory, name), { recursive: true, mode: 0o700 });
    }
  }

  /** A name in `tmp` that tells whose it is; `removeStale` knows by it what a dead process left. */
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

  /** Streams into a temporary file, forces it to the disk, and renames it. */
  async write(path: string, source: AsyncIterable<Uint8Array>, signal: AbortSignal): Promise<void> {
    const temporary = await this.temporary();
    // Opened first: a stream that opens it by itself may do so when what it was for has failed, and what is removed below is not there yet.
    await using file = await open(temporary, "wx", 0o600);
    try {
      await pipeline(source, file.createWriteStream(), { signal });
      await this.publish(temporary, path);
    } finally {
      await rm(temporary, { force: true });
    }
  }

  /** Forces a finished temporary file to the disk and gives it its name. */
  async publish(temporary: string, path: string): Promise<void> {
    const file = await open(temporary, "r");
    try {
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  }
}
