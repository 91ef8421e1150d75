// Finds the kernel for guests if the operator names none: the newest Debian cloud kernel among the packages unpacked
// below the driver's own `kernels` folder and the system's /boot.
import { readdir } from "node:fs/promises";
import { join } from "node:path";

export interface KernelCandidate {
  readonly kernelPath: string;
  readonly release: string;
}

export interface FindKernelOptions {
  /** Each holds `boot/vmlinuz-*` and `lib/modules`; "/" is the system itself. */
  readonly roots: readonly string[];
}

/** Newest first. */
export async function findCloudKernels(options: FindKernelOptions): Promise<KernelCandidate[]> {
  const found: KernelCandidate[] = [];
  for (const root of options.roots) {
    const names = await readdir(join(root, "boot")).catch(() => [] as string[]);
    for (const name of names) {
      const release = /^vmlinuz-(.*-cloud-amd64)$/.exec(name)?.[1];
      if (release !== undefined) found.push({ kernelPath: join(root, "boot", name), release });
    }
  }
  return found.toSorted((a, b) => compareReleases(b.release, a.release));
}

/** The folders that can hold unpacked kernel packages: `base/kernels/NAME` and the system itself. */
export async function kernelRoots(kernelsDirectory: string): Promise<string[]> {
  const names = await readdir(kernelsDirectory).catch(() => [] as string[]);
  return [...names.map((name) => join(kernelsDirectory, name)), "/"];
}

/** Orders "6.1.0-9" before "6.1.0-56": runs of digits count as numbers. */
export function compareReleases(a: string, b: string): number {
  return a.localeCompare(b, "en", { numeric: true });
}
