// Everything that a VM boots from: the ELF kernel and the initramfs made for it. Both are cached by content, so that a
// second call costs a few stat calls.
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { ensureContent } from "../system/files.ts";
import type { HostFile } from "../system/host-file.ts";
import { NoKernelError } from "./errors.ts";
import { findCloudKernels, kernelRoots } from "./find-kernel.ts";
import { buildInitramfs } from "./initramfs.ts";
import { type KernelImage, openKernelImage } from "./kernel-image.ts";
import { collectModules, type KernelModule, type ReadModuleFile } from "./kernel-modules.ts";

export interface BootFiles {
  readonly vmlinuxPath: string;
  readonly initramfsPath: string;
  readonly initramfsBytes: number;
  readonly release: string;
}

export interface PrepareBootOptions {
  /** The operator's choice. Without it, the newest Debian cloud kernel is used. */
  readonly vmlinuxPath: string | undefined;
  /** A job's choice instead, with the way to read the modules beside it, which the job may name too. */
  readonly jobKernel?: { readonly file: HostFile; readonly read: ReadModuleFile } | undefined;
  /** Unpacked kernel packages, one folder each. */
  readonly kernelsDirectory: string;
  readonly cacheDirectory: string;
  /** The guest's PID 1. */
  readonly init: Uint8Array;
  /** The supervisor's program. */
  readonly shimPath: string;
  readonly signal?: AbortSignal | undefined;
}

/** Fails with NoKernelError, KernelImageError or ModuleMissingError. */
export async function prepareBoot(options: PrepareBootOptions): Promise<BootFiles> {
  const roots = await kernelRoots(options.kernelsDirectory);
  const { jobKernel } = options;
  const chosen = jobKernel?.file.path ?? options.vmlinuxPath ?? (await findCloudKernels({ roots }))[0]?.kernelPath;
  if (chosen === undefined) throw new NoKernelError({ searched: [options.kernelsDirectory, "/boot"] });
  const { cacheDirectory, shimPath, signal } = options;
  const image = await openKernelImage({ path: chosen, file: jobKernel?.file, cacheDirectory, shimPath, signal });
  const modules = await modulesFor({ image, chosen, read: jobKernel?.read, roots, signal });
  const initramfs = buildInitramfs({ init: options.init, modules });
  const hash = createHash("sha256").update(initramfs).digest("hex").slice(0, 16);
  const initramfsPath = join(cacheDirectory, `initramfs-${hash}.cpio`);
  await ensureContent({ path: initramfsPath, content: initramfs, mode: 0o644 });
  return { vmlinuxPath: image.vmlinuxPath, initramfsPath, initramfsBytes: initramfs.length, release: image.release };
}

/** A kernel without a modules folder counts as having everything built in (Firecracker's CI kernels). */
async function modulesFor(options: {
  image: KernelImage;
  chosen: string;
  read: ReadModuleFile | undefined;
  roots: readonly string[];
  signal: AbortSignal | undefined;
}): Promise<KernelModule[]> {
  const { release } = options.image;
  if (release === "") return [];
  const beside = { root: join(dirname(options.chosen), ".."), read: options.read ?? readFile };
  for (const { root, read } of [beside, ...options.roots.map((root) => ({ root, read: readFile }))]) {
    const directory = join(root, "lib/modules", release);
    const order = await read(join(directory, "modules.order")).catch(() => undefined);
    if (order !== undefined) return await collectModules({ directory, read, signal: options.signal });
  }
  return [];
}
