// The folders below the plugin's base path.
import { join } from "node:path";
import { requireTrusted } from "../../system/trusted-path.ts";

export interface HostDirectories {
  readonly base: string;
  readonly images: string;
  readonly kernels: string;
  /** Kernels and initramfs files, ready to boot. */
  readonly boot: string;
  /** Programs that the executable brings along. */
  readonly bin: string;
  readonly machines: string;
  readonly spareDisks: string;
}

export function hostDirectories(basePath: string): HostDirectories {
  return {
    base: basePath,
    images: join(basePath, "images"),
    kernels: join(basePath, "kernels"),
    boot: join(basePath, "boot"),
    bin: join(basePath, "bin"),
    machines: join(basePath, "vms"),
    spareDisks: join(basePath, "spare-disks"),
  };
}

/** The driver runs programs of these directories as root. Fails with UntrustedPathError if others than root could exchange one. */
export async function requireTrustedBase(directories: HostDirectories): Promise<void> {
  const { base, bin, boot, kernels, machines } = directories;
  for (const path of [base, bin, boot, kernels, machines]) {
    await requireTrusted({ path, name: `rootfs_base_path ${directories.base}` });
  }
}
