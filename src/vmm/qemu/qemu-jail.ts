// The jail around a VM's QEMU and its vsock device: a root of their own with few files, a user without capabilities, and
// limits. The supervisor's `confine` makes it. Disks are opened before, with root's rights, so they keep their owners. The
// other files have their host's paths in it.
import { chmod, chown, lstat, mkdir } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { Confinement } from "../../system/confine.ts";
import { JailError } from "../errors.ts";
import { requireReadable } from "../require-readable.ts";
import type { VmConfig, VmUser } from "../vmm.ts";

/** As Firecracker's. The vsock device needs one for each connection. */
const openFiles = 2048;
/** The descriptor of the first disk. Lower ones are the process's own and its TAPs. */
const firstDriveFd = 200;
const mib = 1024 * 1024;
/** These are in the jail anyway. */
const systemDirectories = ["/usr", "/bin", "/sbin", "/lib", "/lib64"];

export class QemuJail {
  readonly #config: VmConfig;
  readonly #user: VmUser;
  readonly #programs: { readonly qemu: string; readonly vsockDevice: string };
  readonly #kvm: boolean;

  constructor(options: {
    config: VmConfig;
    user: VmUser;
    /** QEMU's without links. */
    programs: { readonly qemu: string; readonly vsockDevice: string };
    kvm: boolean;
  }) {
    this.#config = options.config;
    this.#user = options.user;
    this.#programs = options.programs;
    this.#kvm = options.kvm;
  }

  /** An empty directory on the host. */
  get #root(): string {
    return join(this.#config.directory, "root");
  }

  /** QEMU's arguments for its disks, in the order of `VmConfig.drives`, and the name of each. */
  get drives(): { readonly args: readonly string[]; readonly names: readonly string[] } {
    const sets = this.#config.drives.map((_, index) => ({ fd: firstDriveFd + index, set: index }));
    return {
      args: sets.flatMap(({ fd, set }) => ["-add-fd", `fd=${fd},set=${set}`]),
      names: sets.map(({ set }) => `/dev/fdset/${set}`),
    };
  }

  get vmm(): Confinement {
    const { spec, drives, vsock } = this.#config;
    return {
      ...this.#user,
      view: {
        kind: "root",
        directory: this.#root,
        system: true,
        readOnly: [
          ...programFiles(this.#programs.qemu),
          spec.vmlinuxPath,
          spec.initramfsPath,
          // A socket there takes connections all the same.
          ...(vsock ? [runDirectory(this.#config)] : []),
        ],
        writable: [],
        devices: this.#kvm ? ["/dev/kvm"] : [],
      },
      files: drives.map(({ path, readOnly }, index) => ({ path, readOnly, fd: firstDriveFd + index })),
      limits: { core: 0, nofile: openFiles, ...this.#fileSizeLimit() },
      umask: 0o077,
    };
  }

  /** The guest's memory is a file, too. */
  #fileSizeLimit(): { fsize?: number } {
    const { drives, spec } = this.#config;
    const sizes = drives.filter((drive) => !drive.readOnly).map((drive) => drive.sizeBytes);
    return sizes.includes(undefined) ? {} : { fsize: Math.max(spec.memSizeMib * mib, ...sizes.map(Number)) };
  }

  get vsockDevice(): Confinement {
    return {
      ...this.#user,
      view: {
        kind: "root",
        directory: this.#root,
        system: false,
        readOnly: [this.#programs.vsockDevice],
        writable: [runDirectory(this.#config)],
        devices: [],
      },
      limits: { core: 0, nofile: openFiles, fsize: 0 },
      seccomp: "vsock",
      // The directory keeps others away. QEMU may connect, and root without further rights.
      umask: 0,
    };
  }

  /** Fails with JailError. */
  async prepare(): Promise<void> {
    const { spec, vsock } = this.#config;
    await mkdir(this.#root, { mode: 0o755 });
    for (const path of [spec.vmlinuxPath, spec.initramfsPath]) await requireReadable(path);
    if (vsock) await chown(runDirectory(this.#config), this.#user.uid, this.#user.gid);
  }

  /**
   * Takes the sockets' directory from the vsock device once it has bound them, and before the guest runs a task. The device
   * can then not replace a socket that we connect to by a link to somewhere else.
   */
  async seal(sockets: readonly string[]): Promise<void> {
    if (!this.#config.vsock) return;
    const directory = runDirectory(this.#config);
    // In this order: QEMU may connect at any time, also between the two.
    await chmod(directory, 0o755);
    await chown(directory, 0, 0);
    for (const path of sockets) {
      if ((await lstat(path)).isSocket()) continue;
      throw new JailError({ reason: `${path} is not a socket`, cure: "this is a defect: please report it" });
    }
  }
}

/** The directory of a VM's sockets. */
export function runDirectory(config: VmConfig): string {
  return join(config.directory, "run");
}

/** QEMU's firmware and modules lie beside it: PREFIX/bin has them in PREFIX/share and PREFIX/lib. */
function programFiles(path: string): string[] {
  if (systemDirectories.some((directory) => path.startsWith(`${directory}/`))) return [];
  const directory = dirname(path);
  const prefix = dirname(directory);
  return [basename(directory) === "bin" && prefix !== "/" ? prefix : path];
}
