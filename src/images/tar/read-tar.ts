// Reads a tar archive from a stream, one entry at a time: ustar, pax and GNU long names. An archive is hostile input:
// every length has a bound before anything of that length is kept, and whatever is not understood is an error, never
// a guess. Libraries are not used because they decode binary attributes as UTF-8.
import { BadLayerError } from "../errors.ts";
import { ByteSource, truncated } from "./byte-source.ts";
import { type PaxRecords, parsePax, paxNumber } from "./pax.ts";
import { maxUint32, shownName, type TarEntryType, type TarHeader } from "./tar-entry.ts";
import { cleanPath } from "./tar-path.ts";
import { blockBytes, parseUstarBlock, type UstarBlock } from "./ustar-block.ts";

export interface TarEntry {
  readonly header: TarHeader;
  /** The file's bytes; may be read once, before the next entry is requested. Unread bytes are skipped. */
  readonly body: () => AsyncGenerator<Buffer>;
}

/** Go's archive/tar, and so docker, has the same limit for one special header. */
const maxExtensionBytes = 1 << 20;
const maxSymlinkBytes = 4_095;
const noPax: PaxRecords = { values: new Map(), xattrs: [] };

const entryTypes: Readonly<Record<string, TarEntryType>> = {
  "0": "file",
  "\0": "file",
  "7": "file",
  "1": "hardlink",
  "2": "symlink",
  "3": "character",
  "4": "block",
  "5": "directory",
  "6": "fifo",
};

/** Fails with BadLayerError; errors of `source` come through as they are. */
export async function* readTar(source: AsyncIterable<Uint8Array>): AsyncGenerator<TarEntry> {
  const bytes = new ByteSource(source);
  let pax = noPax;
  let longName: string | undefined;
  let longLink: string | undefined;
  try {
    for (;;) {
      const raw = await bytes.read(blockBytes);
      const block = raw === undefined ? undefined : parseUstarBlock(raw);
      if (block === undefined) {
        if (pax !== noPax || longName !== undefined || longLink !== undefined) throw truncated();
        await bytes.drain();
        return;
      }
      switch (block.typeFlag) {
        case "x":
          pax = parsePax(await extension(bytes, block));
          continue;
        case "g":
          // Global headers carry comments (git archive); docker and containerd ignore them too.
          await extension(bytes, block);
          continue;
        case "L":
          longName = upToNul(await extension(bytes, block));
          continue;
        case "K":
          longLink = upToNul(await extension(bytes, block));
          continue;
        default:
      }
      const header = combine(block, pax, longName, longLink);
      pax = noPax;
      longName = undefined;
      longLink = undefined;
      const body = new Body(bytes, header.sizeBytes);
      yield { header, body: () => body.chunks() };
      await body.skipRest();
    }
  } finally {
    await bytes.close();
  }
}

class Body {
  readonly #bytes: ByteSource;
  readonly #paddingBytes: number;
  #leftBytes: number;

  constructor(bytes: ByteSource, sizeBytes: number) {
    this.#bytes = bytes;
    this.#leftBytes = sizeBytes;
    this.#paddingBytes = padding(sizeBytes);
  }

  async *chunks(): AsyncGenerator<Buffer> {
    while (this.#leftBytes > 0) {
      const piece = await this.#bytes.some(this.#leftBytes);
      if (piece === undefined) throw truncated();
      this.#leftBytes -= piece.length;
      yield piece;
    }
  }

  async skipRest(): Promise<void> {
    await this.#bytes.skip(this.#leftBytes);
    // umoci writes no padding behind the last file. Go's archive/tar (and so docker) reads on, and the digest covers
    // the rest.
    await this.#bytes.skipUpTo(this.#paddingBytes);
  }
}

export function padding(sizeBytes: number): number {
  return (blockBytes - (sizeBytes % blockBytes)) % blockBytes;
}

async function extension(bytes: ByteSource, block: UstarBlock): Promise<Buffer> {
  if (block.sizeBytes < 0 || block.sizeBytes > maxExtensionBytes) {
    throw new BadLayerError({ problem: `an extended tar header claims ${block.sizeBytes} bytes` });
  }
  const data = block.sizeBytes === 0 ? Buffer.alloc(0) : await bytes.read(block.sizeBytes);
  if (data === undefined) throw truncated();
  const copy = Buffer.from(data);
  await bytes.skip(padding(block.sizeBytes));
  return copy;
}

function upToNul(data: Buffer): string {
  const end = data.indexOf(0);
  return data.toString("latin1", 0, end === -1 ? data.length : end);
}

function combine(block: UstarBlock, pax: PaxRecords, longName?: string, longLink?: string): TarHeader {
  const rawName = pax.values.get("path") || (longName ?? block.name);
  const rawTarget = pax.values.get("linkpath") || (longLink ?? block.linkName);
  const number = (key: string, fallback: number): number => {
    const text = pax.values.get(key);
    return text === undefined || text === "" ? fallback : paxNumber(text, key);
  };
  if ([...pax.values.keys()].some((key) => key.startsWith("GNU.sparse."))) throw unsupported(rawName, "a sparse file");
  const listed = entryTypes[block.typeFlag];
  if (listed === undefined) {
    throw unsupported(rawName, block.typeFlag === "S" ? "a sparse file" : `of type ${shownName(block.typeFlag)}`);
  }
  // Old archives mark directories only by the slash.
  const type = listed === "file" && rawName.endsWith("/") ? "directory" : listed;
  const sizeBytes = type === "file" ? number("size", block.sizeBytes) : 0;
  inRange(rawName, "size", sizeBytes, Number.MAX_SAFE_INTEGER);
  return {
    path: cleanPath(rawName),
    type,
    mode: block.mode & 0o7777,
    uid: inRange(rawName, "uid", number("uid", block.uid), maxUint32),
    gid: inRange(rawName, "gid", number("gid", block.gid), maxUint32),
    mtime: Math.min(Math.max(number("mtime", block.mtime), 0), maxUint32),
    sizeBytes,
    target: linkTarget(type, rawName, rawTarget),
    deviceMajor: inRange(rawName, "device number", block.deviceMajor, 0xfff),
    deviceMinor: inRange(rawName, "device number", block.deviceMinor, 0xf_ffff),
    xattrs: pax.xattrs,
  };
}

function linkTarget(type: TarEntryType, name: string, target: string): string {
  if (type === "hardlink") return cleanPath(target);
  if (type !== "symlink") return "";
  if (target === "" || target.length > maxSymlinkBytes || target.includes("\0")) {
    throw new BadLayerError({ problem: `the symlink ${shownName(name)} has an empty or overlong target` });
  }
  return target;
}

function inRange(name: string, what: string, value: number, max: number): number {
  if (value < 0 || value > max) {
    throw new BadLayerError({ problem: `${shownName(name)} has a ${what} out of range: ${value}` });
  }
  return value;
}

function unsupported(name: string, what: string): BadLayerError {
  return new BadLayerError({ problem: `${shownName(name)} is ${what}, which is not supported` });
}
