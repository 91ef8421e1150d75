// Faults of guest kernels and initrds, in sentences that an operator can act on.
import { driverError } from "../system/error.ts";

export class NoKernelError extends driverError(
  "no_kernel",
  (facts: { searched: readonly string[] }) =>
    `no guest kernel found in ${facts.searched.join(" or ")}: set vmlinux_path in the plugin's config, or install Debian's linux-image-cloud-amd64`,
) {}

export class KernelImageError extends driverError(
  "kernel_image",
  (facts: { path: string; reason: string }) =>
    `${facts.path} is not a guest kernel: ${facts.reason}; give an ELF vmlinux or a distribution's bzImage (vmlinuz) of x86-64, or unset vmlinux_path to use Debian's cloud kernel`,
) {}

export class InitrdError extends driverError(
  "initrd",
  (facts: { path: string; reason: string }) =>
    `${facts.path} is not an initrd: ${facts.reason}; give a cpio archive ("newc"), plain or compressed as kernels know it`,
) {}

export class ModuleMissingError extends driverError(
  "kernel_module_missing",
  (facts: { module: string; directory: string }) =>
    `kernel module ${facts.module} is neither in ${facts.directory} nor built in: install the kernel's complete package`,
) {}
