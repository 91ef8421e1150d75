// The command line of `litegix-shim confine` (crates/shim/src/confine): a program that runs as a user of its own, without
// capabilities, and sees only some files. It dies with the process that starts it.

export interface Confinement {
  /** Not root, and nobody else's. */
  readonly uid: number;
  readonly gid: number;
  /** Directories of the cgroup that it runs in. */
  readonly cgroups?: readonly string[] | undefined;
  /** Default: the caller's. "none": without any interface. Else a namespace's file. */
  readonly network?: "none" | { readonly path: string } | undefined;
  readonly view: ConfinedView;
  readonly limits?: Readonly<Partial<Record<"core" | "fsize" | "nofile" | "nproc", number>>> | undefined;
  /** Files that are opened with root's rights and passed as these descriptors. */
  readonly files?: readonly { readonly path: string; readonly readOnly: boolean; readonly fd: number }[] | undefined;
  /** A filter of system calls that the program knows. */
  readonly seccomp?: "vsock" | undefined;
  readonly umask?: number | undefined;
}

export type ConfinedView =
  | {
      readonly kind: "host";
      /** All else of the host's file system is read-only. */
      readonly writable: readonly ConfinedBind[];
      /** Directories that are empty, but for the `shown` paths below them. Those that don't exist are left out. */
      readonly hidden?: readonly string[] | undefined;
      readonly shown?: readonly string[] | undefined;
      /** Size of a /tmp of the program's own. */
      readonly tmpMib?: number | undefined;
    }
  | {
      readonly kind: "root";
      /** An empty directory. The new root exists in the program's mount namespace only. */
      readonly directory: string;
      /** Whether /usr, /lib and their like are in it. */
      readonly system: boolean;
      readonly readOnly: readonly ConfinedBind[];
      readonly writable: readonly ConfinedBind[];
      /** Device nodes, which belong to the program's user. */
      readonly devices: readonly string[];
    };

/** A path of the host, and where the program finds it; default: at the same path. */
export type ConfinedBind = string | { readonly source: string; readonly target: string };

export function confined(options: {
  shimPath: string;
  confinement: Confinement;
  argv: readonly [string, ...string[]];
}): [string, ...string[]] {
  const { shimPath, confinement, argv } = options;
  return [shimPath, "confine", ...confineOptions(confinement), "--", ...argv];
}

function confineOptions(confinement: Confinement): string[] {
  const { uid, gid, cgroups = [], network, view, limits = {}, files = [], seccomp, umask } = confinement;
  return [
    ...["--uid", `${uid}`, "--gid", `${gid}`],
    ...cgroups.flatMap((directory) => ["--cgroup-procs", `${directory}/cgroup.procs`]),
    ...(network === "none" ? ["--no-net"] : []),
    ...(typeof network === "object" ? ["--netns", network.path] : []),
    ...(view.kind === "root" ? newRoot(view) : hostRoot(view)),
    ...Object.entries(limits).flatMap(([name, value]) => ["--limit", `${name}=${value}`]),
    ...files.flatMap(({ path, readOnly, fd }) => [readOnly ? "--ro-open" : "--open", path, `${fd}`]),
    ...(seccomp === undefined ? [] : ["--seccomp", seccomp]),
    ...(umask === undefined ? [] : ["--umask", umask.toString(8)]),
  ];
}

function newRoot(view: ConfinedView & { kind: "root" }): string[] {
  return [
    ...["--root", view.directory],
    ...(view.system ? ["--system"] : []),
    ...view.readOnly.flatMap((bind) => ["--ro-bind", ...sides(bind)]),
    ...view.writable.flatMap((bind) => ["--bind", ...sides(bind)]),
    ...view.devices.flatMap((path) => ["--device", path]),
  ];
}

function hostRoot(view: ConfinedView & { kind: "host" }): string[] {
  const { writable, hidden = [], shown = [], tmpMib } = view;
  return [
    ...writable.flatMap((bind) => ["--bind", ...sides(bind)]),
    ...hidden.flatMap((path) => ["--hide", path]),
    ...shown.flatMap((path) => ["--show", path]),
    ...(tmpMib === undefined ? [] : ["--tmp-mib", `${tmpMib}`]),
  ];
}

function sides(bind: ConfinedBind): [source: string, target: string] {
  return typeof bind === "string" ? [bind, bind] : [bind.source, bind.target];
}
