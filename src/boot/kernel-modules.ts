// The modules that the guest's init must load before it can mount and answer, each after the modules whose symbols it
// needs (there is no modprobe in the guest). Dependencies come from each module's own .modinfo ("depends="). A package
// that was only unpacked (no depmod run, no modules.dep) is therefore as good as an installed one. Loading modules is a
// good part of a guest's boot. This file removes the useless parts that slow it down (signature, type information).
// Init loads the module of a device or of a hypervisor only if that exists.
import { readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { promisify } from "node:util";
import { gunzip, zstdDecompress } from "node:zlib";
import { decompressXz } from "./decompress.ts";
import { ModuleMissingError } from "./errors.ts";

export interface KernelModule {
  /** File name in the initramfs, "NAME.ko". */
  readonly fileName: string;
  /** The uncompressed module. */
  readonly content: Buffer;
  /** The hosts on which the guest needs it; absent if every guest does. */
  readonly condition?: ModuleCondition;
}

/** A virtio device of this type (virtio specification, "Device Types"), or a hypervisor that is KVM. */
export type ModuleCondition = number | "kvm";

interface Need {
  readonly name: string;
  /** The guest boots without it. */
  readonly optional?: true;
  readonly condition?: ModuleCondition;
}

/**
 * The modules that a guest on virtio-mmio needs, in the order of loading. A kernel with a built-in module has no file
 * of it. The way to the host comes first: init answers there while it loads the rest.
 */
const needs: readonly Need[] = [
  { name: "virtio_mmio" },
  { name: "vmw_vsock_virtio_transport" },
  { name: "virtio_blk" },
  { name: "squashfs" },
  { name: "overlay" },
  { name: "virtio_net", optional: true, condition: 1 },
  { name: "virtio_rng", optional: true, condition: 4 },
  { name: "virtio_balloon", optional: true, condition: 5 },
  // The host's wall clock.
  { name: "ptp_kvm", optional: true, condition: "kvm" },
];

const normalise = (name: string): string => name.replaceAll("-", "_");
const moduleName = (path: string): string => normalise(basename(path).replace(/\.ko(\.(xz|zst|gz))?$/, ""));

export interface CollectModulesOptions {
  /** `.../lib/modules/RELEASE`. */
  readonly directory: string;
  /** How its files are read. Default: by their paths. */
  readonly read?: ReadModuleFile | undefined;
  readonly signal?: AbortSignal | undefined;
}

export type ReadModuleFile = (path: string) => Promise<Buffer>;

/** Fails with ModuleMissingError if a needed module is neither a file nor built in. */
export async function collectModules(options: CollectModulesOptions): Promise<KernelModule[]> {
  const { read = readFile } = options;
  const files = await listModules(join(options.directory, "modules.order"), read);
  const builtIn = new Set((await readLines(join(options.directory, "modules.builtin"), read)).map(moduleName));
  const collected = new Map<string, KernelModule>();

  const add = async ({ name, optional, condition }: Need): Promise<void> => {
    if (collected.has(name) || builtIn.has(name)) return;
    const file = files.get(name);
    if (file === undefined) {
      if (optional !== true) throw new ModuleMissingError({ module: name, directory: options.directory });
      return;
    }
    const content = trimModule(await readModule(join(options.directory, file), read, options.signal));
    const conditional = condition === undefined ? {} : { condition };
    for (const dependency of dependenciesOf(content)) await add({ name: dependency, ...conditional });
    collected.set(name, { fileName: `${name}.ko`, content, ...conditional });
  };
  for (const need of needs) await add(need);
  return [...collected.values()];
}

async function readLines(path: string, read: ReadModuleFile): Promise<string[]> {
  const content = await read(path).catch(() => "");
  return content
    .toString()
    .split("\n")
    .filter((line) => line !== "");
}

/** modules.order names files as built (`kernel/.../x.ko`); packages may have compressed them afterwards. */
async function listModules(path: string, read: ReadModuleFile): Promise<Map<string, string>> {
  return new Map((await readLines(path, read)).map((line) => [moduleName(line), line]));
}

async function readModule(path: string, read: ReadModuleFile, signal: AbortSignal | undefined): Promise<Buffer> {
  const plain = path.replace(/\.(xz|zst|gz)$/, "");
  const unpackers: [string, (content: Buffer) => Promise<Buffer>][] = [
    ["", (content) => Promise.resolve(content)],
    [".xz", (content) => decompressXz(content, signal)],
    [".zst", (content) => promisify(zstdDecompress)(content)],
    [".gz", (content) => promisify(gunzip)(content)],
  ];
  for (const [suffix, unpack] of unpackers) {
    const content = await read(plain + suffix).catch(() => undefined);
    if (content !== undefined) return await unpack(content);
  }
  throw new ModuleMissingError({ module: moduleName(path), directory: path });
}

/** .modinfo holds NUL-terminated KEY=VALUE strings. */
function dependenciesOf(module: Buffer): string[] {
  const marker = Buffer.from("\0depends=");
  const at = module.indexOf(marker);
  if (at < 0) return [];
  const start = at + marker.length;
  const end = module.indexOf(0, start);
  return module
    .toString("latin1", start, end < 0 ? module.length : end)
    .split(",")
    .filter((name) => name !== "")
    .map(normalise);
}

const signatureMarker = Buffer.from("~Module signature appended~\n");
/** struct module_signature of include/linux/module_signature.h; its last field is the signature's length. */
const signatureFactsBytes = 12;

/**
 * Returns the module without its appended signature, which our guests' kernels do not enforce: checking it hashes the
 * whole file. Its type information (.BTF, for tracing programs) gets a name that the kernel does not look for.
 */
export function trimModule(module: Buffer): Buffer {
  const trimmed = Buffer.from(withoutSignature(module));
  const name = Buffer.from("\0.BTF\0");
  // Section names are at the file's end.
  const at = trimmed.lastIndexOf(name);
  if (at >= 0) trimmed.write(".xTF", at + 1, "latin1");
  return trimmed;
}

function withoutSignature(module: Buffer): Buffer {
  const end = module.length - signatureMarker.length;
  if (end < signatureFactsBytes || !module.subarray(end).equals(signatureMarker)) return module;
  const signatureBytes = module.readUInt32BE(end - 4);
  const start = end - signatureFactsBytes - signatureBytes;
  return start > 0 ? module.subarray(0, start) : module;
}
