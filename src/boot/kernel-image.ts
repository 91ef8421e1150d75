// Turns the kernels that users have (an ELF vmlinux, a distribution's bzImage) into the one that both VMMs boot
// fastest: the ELF. A bzImage's ELF is extracted once and kept under its content's hash. Header fields: Linux'
// Documentation/arch/x86/boot.rst.

import { createHash } from "node:crypto";
import { mkdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { gunzip, zstdDecompress } from "node:zlib";
import { reasonOf } from "../system/error.ts";
import { exists, writeFileAtomically } from "../system/files.ts";
import type { HostFile } from "../system/host-file.ts";
import { decompressLz4, decompressXz, lz4LegacyMagic } from "./decompress.ts";
import { describeFile } from "./describe-file.ts";
import { KernelImageError } from "./errors.ts";

export interface KernelImage {
  /** Path of an uncompressed x86-64 ELF. */
  readonly vmlinuxPath: string;
  /** As `uname -r` prints it; empty if the image does not contain it. */
  readonly release: string;
}

export interface OpenKernelOptions {
  readonly path: string;
  /** The file itself, if a job names it: its path may lead elsewhere by now. The VM boots a copy of it. */
  readonly file?: HostFile | undefined;
  /** The folder of extracted kernels. */
  readonly cacheDirectory: string;
  /** The supervisor's program, which decompresses LZ4. */
  readonly shimPath: string;
  readonly signal?: AbortSignal | undefined;
}

const maxImageBytes = 512 * 1024 * 1024;

interface KnownImage {
  readonly identity: string;
  readonly image: KernelImage;
}

/** This process's cache, by path: every look at the host asks for the kernel, which hardly ever changes. */
const known = new Map<string, KnownImage>();

/** Fails with KernelImageError, whose message describes the file and names the cure. */
export async function openKernelImage(options: OpenKernelOptions): Promise<KernelImage> {
  const { path, file, cacheDirectory } = options;
  const key = [file === undefined ? "" : "copy", path, cacheDirectory].join("\0");
  const identity = await identityOf(options);
  const seen = known.get(key);
  if (seen !== undefined && seen.identity === identity && (await exists(seen.image.vmlinuxPath))) return seen.image;
  const image = await readKernelImage(options);
  if (identity !== undefined) known.set(key, { identity, image });
  return image;
}

/** Changes whenever the file's content does; undefined if the file is missing. */
async function identityOf({ path, file }: OpenKernelOptions): Promise<string | undefined> {
  const facts = file?.facts ?? (await stat(path, { bigint: true }).catch(() => undefined));
  return facts && [facts.dev, facts.ino, facts.size, facts.mtimeNs, facts.ctimeNs].join(" ");
}

async function readKernelImage(options: OpenKernelOptions): Promise<KernelImage> {
  const { path, file } = options;
  const content = await readImage(options);
  if (isElf(content)) {
    checkElf(path, content);
    const vmlinuxPath = file === undefined ? path : await cached(options, content, async () => content);
    return { vmlinuxPath, release: releaseFromBanner(content) };
  }
  if (isBzImage(content)) {
    const vmlinuxPath = await cached(options, content, () => extractElf(options, content));
    return { vmlinuxPath, release: releaseFromBzImage(content) };
  }
  throw new KernelImageError({ path, reason: `it is ${describeFile(content).name}` });
}

/** The path of the ELF, by the content of the file that it comes from. */
async function cached(options: OpenKernelOptions, content: Buffer, makeElf: () => Promise<Buffer>): Promise<string> {
  const hash = createHash("sha256").update(content).digest("hex").slice(0, 16);
  const path = join(options.cacheDirectory, `vmlinux-${hash}`);
  if (await exists(path)) return path;
  const elf = await makeElf();
  await mkdir(options.cacheDirectory, { recursive: true });
  await writeFileAtomically({ path, content: elf, mode: 0o644, durable: true });
  return path;
}

async function readImage({ path, file }: OpenKernelOptions): Promise<Buffer> {
  try {
    const facts = file?.facts ?? (await stat(path));
    if (!facts.isFile()) throw new KernelImageError({ path, reason: "it is not a regular file" });
    if (facts.size <= 0) throw new KernelImageError({ path, reason: "the file is empty" });
    if (facts.size > maxImageBytes) throw new KernelImageError({ path, reason: `it has ${facts.size} bytes` });
    return await (file?.read(maxImageBytes) ?? readFile(path));
  } catch (error) {
    if (error instanceof KernelImageError) throw error;
    const code = (error as NodeJS.ErrnoException).code;
    throw new KernelImageError({
      path,
      reason: code === "ENOENT" ? "there is no such file" : `it can't be read (${code})`,
      cause: error,
    });
  }
}

const isElf = (content: Buffer): boolean => content.length > 64 && content.readUInt32BE(0) === 0x7f454c46;

function checkElf(path: string, content: Buffer): void {
  const is64Bit = content[4] === 2;
  const machine = content.readUInt16LE(18);
  if (!is64Bit || machine !== 62)
    throw new KernelImageError({ path, reason: `it is an ELF file for another machine (${machine})` });
  if (content.indexOf("Linux version ") < 0)
    throw new KernelImageError({ path, reason: "it is an ELF file, but not of Linux" });
}

const isBzImage = (content: Buffer): boolean =>
  content.length > 0x260 &&
  content.readUInt16LE(0x1fe) === 0xaa55 &&
  content.toString("latin1", 0x202, 0x206) === "HdrS";

/** The banner "Linux version RELEASE (builder) ..."; its format string "Linux version %s" comes first in some builds. */
function releaseFromBanner(content: Buffer): string {
  let at = content.indexOf("Linux version ");
  while (at >= 0) {
    const match = /^Linux version ([0-9][\w.+~-]*) /.exec(content.toString("latin1", at, at + 200));
    if (match?.[1] !== undefined) return match[1];
    at = content.indexOf("Linux version ", at + 1);
  }
  return "";
}

function releaseFromBzImage(content: Buffer): string {
  const at = content.readUInt16LE(0x20e) + 0x200;
  const text = content.toString("latin1", at, at + 200);
  return /^([0-9][\w.+~-]*)/.exec(text)?.[1] ?? "";
}

async function extractElf(options: OpenKernelOptions, content: Buffer): Promise<Buffer> {
  const { path } = options;
  const setupSectors = content[0x1f1] === 0 ? 4 : (content[0x1f1] ?? 4);
  const start = (setupSectors + 1) * 512 + content.readUInt32LE(0x248);
  const end = start + content.readUInt32LE(0x24c);
  if (end > content.length || end - start < 16) throw new KernelImageError({ path, reason: "its payload is cut off" });
  const payload = content.subarray(start, end);
  try {
    const elf = await decompressPayload(payload, options);
    if (!isElf(elf)) throw new KernelImageError({ path, reason: "its payload is not an ELF file" });
    return elf;
  } catch (error) {
    if (error instanceof KernelImageError) throw error;
    throw new KernelImageError({
      path,
      reason: `its payload can't be decompressed (${reasonOf(error)})`,
      cause: error,
    });
  }
}

async function decompressPayload(payload: Buffer, options: OpenKernelOptions): Promise<Buffer> {
  const { shimPath, signal } = options;
  // All but gzip store the uncompressed size behind the compressed data.
  const withoutSize = payload.subarray(0, payload.length - 4);
  if (payload.readUInt32LE(0) === lz4LegacyMagic) {
    const sizeBytes = payload.readUInt32LE(withoutSize.length);
    if (sizeBytes > maxImageBytes) throw new Error(`it would have ${sizeBytes} bytes`);
    return await decompressLz4({ frame: withoutSize, sizeBytes, shimPath, signal });
  }
  if (payload.readUInt16BE(0) === 0x1f8b) {
    return await promisify(gunzip)(payload, { chunkSize: 1 << 20, maxOutputLength: maxImageBytes });
  }
  if (payload.readUInt32LE(0) === 0xfd2fb528) {
    return await promisify(zstdDecompress)(withoutSize, { chunkSize: 1 << 20, maxOutputLength: maxImageBytes });
  }
  if (payload.toString("latin1", 1, 5) === "7zXZ") {
    return await decompressXz(withoutSize, signal);
  }
  if (isElf(payload)) return payload;
  throw new Error(`it is ${describeFile(payload).name}; known are gzip, xz, zstd, LZ4 (legacy frame) and none`);
}
