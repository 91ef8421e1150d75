// What can be wrong with a guest kernel, in sentences an operator can act on.

export class NoKernelError extends Error {
  readonly code = "no_kernel";
  readonly searched: readonly string[];
  constructor(searched: readonly string[]) {
    super(
      `no guest kernel found in ${searched.join(" or ")}: set vmlinux_path in the plugin's config, or install Debian's linux-image-cloud-amd64`,
    );
    this.searched = searched;
  }
}

export class KernelImageError extends Error {
  readonly code = "kernel_image";
  readonly path: string;
  readonly reason: string;
  constructor(path: string, reason: string, options?: ErrorOptions) {
    super(
      `${path} is no guest kernel: ${reason}; give an ELF vmlinux or a distribution's bzImage (vmlinuz) of x86-64, or unset vmlinux_path to use Debian's cloud kernel`,
      options,
    );
    this.path = path;
    this.reason = reason;
  }
}

export class InitrdError extends Error {
  readonly code = "initrd";
  readonly path: string;
  constructor(path: string, reason: string) {
    super(`${path} is no initrd: ${reason}; give a cpio archive ("newc"), plain or compressed as kernels know it`);
    this.path = path;
  }
}

export class ModuleMissingError extends Error {
  readonly code = "kernel_module_missing";
  readonly module: string;
  constructor(module: string, directory: string) {
    super(`kernel module ${module} is neither in ${directory} nor built in: install the kernel's complete package`);
    this.module = module;
  }
}
