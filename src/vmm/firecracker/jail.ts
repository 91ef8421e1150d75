// The jail that Firecracker's own jailer builds around a VM: chroot, user, resource limits. It lies inside the VM's directory, so that removing that directory removes it. Read-only bind mounts show it the files that it shares with
// others (kernel, initramfs, image). They work across file systems, which hard links don't. The supervisor makes them in the VMM's
// own mount namespace only. The sockets are reached through links outside the jail, which keeps their paths short.
//
// The driver does not use the jailer's `--new-pid-ns`, `--netns` or `--cgroup`. The supervisor makes the namespaces (it
// stays the VMM's parent and learns how it ended), and its children are in the VM's cgroup from the start.
import { chmod, chown, lstat, mkdir, open, symlink } from "node:fs/promises";
import { basename, join, relative } from "node:path";
import type { HostFile } from "../../system/host-file.ts";
import { JailError } from "../errors.ts";
import { driveMounts, makeDrivePlaces } from "../host-drives.ts";
import { requireReadable } from "../require-readable.ts";
import type { BindMount, DriveMount, VmConfig } from "../vmm.ts";

export interface JailPrograms {
  /** Without links: the jailer names the jail after the file. */
  readonly firecrackerPath: string;
  readonly jailerPath: string;
}

/** More than Firecracker opens, which sizes its table by this limit. */
const openFiles = 2048;

export class Jail {
  readonly #config: VmConfig;
  readonly #programs: JailPrograms;
  readonly #user: { readonly uid: number; readonly gid: number };
  /** The jail's root on the host. */
  readonly root: string;

  constructor(options: {
    config: VmConfig;
    programs: JailPrograms;
    user: { readonly uid: number; readonly gid: number };
  }) {
    this.#config = options.config;
    this.#programs = options.programs;
    this.#user = options.user;
    this.root = join(this.#base, basename(options.programs.firecrackerPath), options.config.id, "root");
  }

  /** The jailer writes its number here right before it starts Firecracker. */
  get startedPath(): string {
    return join(this.root, `${basename(this.#programs.firecrackerPath)}.pid`);
  }

  get #base(): string {
    return join(this.#config.directory, "jail");
  }

  /** Host path to path in the jail, of every file that the VMM opens. */
  get #files(): ReadonlyMap<string, string> {
    const { drives, spec } = this.#config;
    return new Map([
      [spec.vmlinuxPath, "/vmlinux"],
      [spec.initramfsPath, "/initramfs"],
      ...drives.map((drive, index): [string, string] => [drive.path, `/drive${index}`]),
    ]);
  }

  /** A path of the host as the VMM sees it. Files of the VM's own directory are in its root. */
  inside(hostPath: string): string {
    return this.#files.get(hostPath) ?? `/${basename(hostPath)}`;
  }

  argv(apiSocketPath: string): [string, ...string[]] {
    const { id } = this.#config;
    return [
      this.#programs.jailerPath,
      ...["--id", id],
      ...["--exec-file", this.#programs.firecrackerPath],
      ...["--uid", `${this.#user.uid}`, "--gid", `${this.#user.gid}`],
      ...["--chroot-base-dir", this.#base],
      ...["--resource-limit", `no-file=${openFiles}`],
      ...this.#fileSizeLimit(),
      "--",
      ...["--api-sock", this.inside(apiSocketPath)],
    ];
  }

  /**
   * The size of the largest file that the VMM may write. Without a limit a compromised VMM could fill the host's disk.
   */
  #fileSizeLimit(): string[] {
    const sizes = this.#config.drives.filter((drive) => !drive.readOnly).map((drive) => drive.sizeBytes);
    if (sizes.includes(undefined)) return [];
    return ["--resource-limit", `fsize=${Math.max(1 << 20, ...sizes.map(Number))}`];
  }

  /** The files of the VM's own directory, and those that it shares with other VMs. */
  binds(): BindMount[] {
    const writable = new Set(this.#config.drives.filter((drive) => !drive.readOnly).map((drive) => drive.path));
    const ofHost = new Set(this.#config.drives.filter((drive) => drive.file !== undefined).map((drive) => drive.path));
    return [...this.#files]
      .filter(([source]) => !ofHost.has(source))
      .map(([source, name]) => ({ source, target: join(this.root, name), readOnly: !writable.has(source) }));
  }

  /** The job's disks of the host. */
  drives(): DriveMount[] {
    return driveMounts(this.#config, this.#user).map((drive) => ({
      ...drive,
      target: join(this.root, this.inside(drive.target)),
    }));
  }

  /** Makes the files and links that the supervisor and the jailer expect. Fails with JailError. */
  async prepare(options: { sockets: readonly string[] }): Promise<void> {
    const { uid, gid } = this.#user;
    await mkdir(this.root, { recursive: true, mode: 0o700 });
    for (const { source, target, readOnly } of this.binds()) {
      if (readOnly) await requireReadable(source);
      else await chown(source, uid, gid);
      await (await open(target, "wx", 0o600)).close();
    }
    for (const { file, readOnly } of this.drives()) requireOwnersAccess(file, readOnly);
    await makeDrivePlaces(this.drives());
    for (const path of options.sockets) {
      await symlink(relative(this.#config.directory, join(this.root, this.inside(path))), path);
    }
  }

  /**
   * Takes the jail's root from the VMM once it has bound its sockets and before the guest runs. The VMM can then not
   * replace a socket that we connect to by a link to somewhere else.
   */
  async seal(sockets: readonly string[]): Promise<void> {
    for (const path of sockets) {
      const facts = await lstat(join(this.root, this.inside(path)));
      if (!facts.isSocket())
        throw new JailError({ reason: `${path} is not a socket`, cure: "this is a defect: please report it" });
    }
    await chown(this.root, 0, 0);
    await chmod(this.root, 0o755);
  }
}

/** The VM's user has the rights of the file's owner. */
function requireOwnersAccess(file: HostFile, readOnly: boolean): void {
  const { mode } = file.facts;
  const needed = readOnly ? 0o400n : 0o600n;
  if (file.kind !== "file" || (mode & needed) === needed) return;
  const [verb, right] = readOnly ? ["read", "r"] : ["read and write", "rw"];
  throw new JailError({
    reason: `the owner of ${file.path} may not ${verb} it`,
    cure: `chmod u+${right} ${file.path}`,
  });
}
