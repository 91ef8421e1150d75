// The host's facts for the production checks, from the files of the kernel and the system. Each is undefined if this kernel does
// not have it, or if this user may not read it. Sources: the kernel's Documentation/ABI and admin-guide (hw-vuln, mm/ksm).
import { readdir, readFile, realpath } from "node:fs/promises";
import { basename, dirname, join, relative } from "node:path";
import type { UserRange } from "../../../machine/users.ts";
import { findProgram } from "../../../system/processes.ts";
import { untrustedPart } from "../../../system/trusted-path.ts";

export interface HostState {
  readonly kernelRelease: string | undefined;
  readonly kernelArguments: readonly string[];
  /** This host is a virtual machine itself. */
  readonly virtual: boolean | undefined;
  /** The CPUs' different revisions. */
  readonly microcode: readonly string[];
  readonly smt: string | undefined;
  /** The kernel's sentence for each weakness of the CPU, by its name. */
  readonly vulnerabilities: Readonly<Record<string, string>> | undefined;
  readonly ksm: string | undefined;
  readonly swaps: readonly Swap[] | undefined;
  /** The kernel has memory controllers that correct errors. */
  readonly errorCorrection: boolean;
  readonly consoleLevel: number | undefined;
  readonly serialConsole: boolean;
  readonly kvm: KvmParameters;
  readonly pitThreads: readonly PitThread[];
  /** Some cgroup hierarchy favours changes over speed. */
  readonly favordynmods: boolean;
  readonly cgroupVersion: 1 | 2 | undefined;
  readonly baseMount: Mount | undefined;
  readonly basePath: TrustedPath;
  readonly programs: readonly TrustedPath[];
  /** The directories of `allowed_host_paths`. */
  readonly hostPaths: readonly TrustedPath[];
  /** Users and groups of /etc/passwd, /etc/group and the subordinate ranges that lie in `uid_range`. */
  readonly takenUsers: readonly string[];
  /** TCP ports at which something listens on more than loopback. */
  readonly listening: ReadonlySet<number>;
}

export interface Swap {
  readonly name: string;
  readonly kind: "encrypted" | "memory" | "plain";
}

/** The modules' parameters, as the kernel prints them. */
export interface KvmParameters {
  readonly nested: string | undefined;
  readonly minTimerPeriodUs: string | undefined;
  readonly nxHugePages: string | undefined;
}

/** A kernel thread that injects one VM's timer interrupts. */
export interface PitThread {
  readonly name: string;
  readonly inRootCgroup: boolean;
}

export interface Mount {
  readonly point: string;
  readonly type: string;
  readonly options: readonly string[];
}

export interface TrustedPath {
  readonly path: string;
  /** The part of it that others than root may change, and the command that helps. */
  readonly fault: string | undefined;
}

export interface ReadHostOptions {
  readonly basePath: string;
  readonly firecrackerPath: string | undefined;
  readonly jailerPath: string | undefined;
  readonly users: UserRange;
  readonly hostPaths: readonly string[];
  /** Leaves out what takes long on a busy host: VMs' threads and listeners. Default: no. */
  readonly brief?: boolean;
  /** The directory that the host's files are read below. Default: the root. */
  readonly root?: string;
}

/** Never fails. */
export async function readHostState(options: ReadHostOptions): Promise<HostState> {
  const { basePath, users, brief = false, root = "/" } = options;
  const files = new HostFiles(root);
  const [cpuinfo, cmdline, mounts, consoles] = await Promise.all(
    ["/proc/cpuinfo", "/proc/cmdline", "/proc/self/mounts", "/proc/consoles"].map((path) => files.read(path)),
  );
  const kernelArguments = (cmdline ?? "").split(/\s+/).filter((word) => word !== "");
  const mounted = parseMounts(mounts ?? "");
  const printk = await files.read("/proc/sys/kernel/printk");
  return {
    kernelRelease: await files.read("/proc/sys/kernel/osrelease"),
    kernelArguments,
    virtual: cpuinfo === undefined ? undefined : /^flags\s*:.*\bhypervisor\b/m.test(cpuinfo),
    microcode: [
      ...new Set([...(cpuinfo ?? "").matchAll(/^microcode\s*:\s*(\S+)/gm)].map(([, revision = ""]) => revision)),
    ],
    smt: await files.read("/sys/devices/system/cpu/smt/control"),
    vulnerabilities: await readVulnerabilities(files),
    ksm: await files.read("/sys/kernel/mm/ksm/run"),
    swaps: await readSwaps(files),
    errorCorrection: (await files.list("/sys/devices/system/edac/mc")).some((name) => /^mc\d/.test(name)),
    consoleLevel: printk === undefined ? undefined : Number.parseInt(printk, 10),
    serialConsole: /^tty(?:S|AMA)\d/m.test(consoles ?? ""),
    kvm: await readKvm(files),
    pitThreads: brief ? [] : await readPitThreads(files),
    favordynmods:
      mounted.some(({ type, options }) => type.startsWith("cgroup") && options.includes("favordynmods")) ||
      kernelArguments.includes("cgroup_favordynmods=true"),
    cgroupVersion: cgroupVersion(mounted),
    baseMount: mountOf(mounted, basePath),
    basePath: await trust(files, basePath),
    programs: await findPrograms(files, options),
    hostPaths: await Promise.all(options.hostPaths.map((path) => trust(files, path, true))),
    takenUsers: await findTakenUsers(files, users),
    listening: new Set(brief ? [] : await readListeners(files)),
  };
}

/** Files of the host, by their absolute paths. */
class HostFiles {
  readonly #root: string;

  constructor(root: string) {
    this.#root = root;
  }

  /** Without blanks at its ends. */
  async read(path: string): Promise<string | undefined> {
    return (await readFile(this.at(path), "utf8").catch(() => undefined))?.trim();
  }

  async list(path: string): Promise<string[]> {
    return await readdir(this.at(path)).catch(() => []);
  }

  at(path: string): string {
    return join(this.#root, path);
  }

  /** Without links; the path itself if it does not exist. */
  async resolve(path: string): Promise<string> {
    try {
      return `/${relative(await realpath(this.#root), await realpath(this.at(path)))}`;
    } catch {
      return path;
    }
  }
}

async function readVulnerabilities(files: HostFiles): Promise<HostState["vulnerabilities"]> {
  const directory = "/sys/devices/system/cpu/vulnerabilities";
  const names = (await files.list(directory)).toSorted();
  if (names.length === 0) return undefined;
  const entries = names.map(async (name) => [name, (await files.read(join(directory, name))) ?? "Unknown"] as const);
  return Object.fromEntries(await Promise.all(entries));
}

async function readSwaps(files: HostFiles): Promise<Swap[] | undefined> {
  const table = await files.read("/proc/swaps");
  if (table === undefined) return undefined;
  const names = table
    .split("\n")
    .slice(1)
    .map((line) => line.split(/\s+/)[0] ?? "");
  return await Promise.all(
    names.filter((name) => name !== "").map(async (name) => ({ name, kind: await swapKind(files, name) })),
  );
}

/** A device-mapper device of cryptsetup has a UUID that begins with its kind. */
async function swapKind(files: HostFiles, name: string): Promise<Swap["kind"]> {
  if (!name.startsWith("/dev/")) return "plain";
  const device = basename(await files.resolve(name));
  const uuid = await files.read(`/sys/class/block/${device}/dm/uuid`);
  if (uuid?.startsWith("CRYPT-") === true) return "encrypted";
  if (!device.startsWith("zram")) return "plain";
  const backing = await files.read(`/sys/class/block/${device}/backing_dev`);
  return backing === undefined || backing === "none" ? "memory" : "plain";
}

async function readKvm(files: HostFiles): Promise<KvmParameters> {
  const parameter = (module: string, name: string): Promise<string | undefined> =>
    files.read(`/sys/module/${module}/parameters/${name}`);
  return {
    nested: (await parameter("kvm_intel", "nested")) ?? (await parameter("kvm_amd", "nested")),
    minTimerPeriodUs: await parameter("kvm", "min_timer_period_us"),
    nxHugePages: await parameter("kvm", "nx_huge_pages"),
  };
}

async function readPitThreads(files: HostFiles): Promise<PitThread[]> {
  const threads: PitThread[] = [];
  for (const pid of await files.list("/proc")) {
    if (!/^\d+$/.test(pid)) continue;
    const name = await files.read(`/proc/${pid}/comm`);
    if (name?.startsWith("kvm-pit/") !== true) continue;
    // A group of v1's "cpu" or of v2 other than the root limits the thread.
    const groups = ((await files.read(`/proc/${pid}/cgroup`)) ?? "").split("\n");
    const limiting = groups.filter((line) => /^(?:0:|\d+:(?:\w+,)*cpu[,:])/.test(line));
    threads.push({ name, inRootCgroup: limiting.every((line) => line.endsWith(":/")) });
  }
  return threads;
}

/** The lines of /proc/self/mounts, blanks in paths as octal escapes. */
function parseMounts(text: string): Mount[] {
  return text.split("\n").flatMap((line) => {
    const [, point, type, options] = line.split(" ");
    if (point === undefined || type === undefined || options === undefined) return [];
    const path = point.replaceAll(/\\([0-7]{3})/g, (_, octal: string) =>
      String.fromCodePoint(Number.parseInt(octal, 8)),
    );
    return [{ point: path, type, options: options.split(",") }];
  });
}

/** The hybrid layout counts as version 1: its unified hierarchy has no controllers. */
function cgroupVersion(mounts: readonly Mount[]): 1 | 2 | undefined {
  if (mounts.some(({ type, options }) => type === "cgroup" && options.includes("memory"))) return 1;
  return mounts.some(({ type }) => type === "cgroup2") ? 2 : undefined;
}

/** The last mount on the longest way to `path`. */
function mountOf(mounts: readonly Mount[], path: string): Mount | undefined {
  const above = mounts.filter(({ point }) => point === "/" || path === point || path.startsWith(`${point}/`));
  const longest = Math.max(...above.map(({ point }) => point.length));
  return above.findLast(({ point }) => point.length === longest);
}

async function trust(files: HostFiles, path: string, isDirectory = false): Promise<TrustedPath> {
  const part = await untrustedPart({ path: files.at(path), isDirectory });
  return { path, fault: part && `${part.path} ${part.reason} (${part.cure})` };
}

async function findPrograms(files: HostFiles, options: ReadHostOptions): Promise<TrustedPath[]> {
  const firecracker = await findProgram(options.firecrackerPath ?? "firecracker");
  if (firecracker === undefined) return [];
  const beside = join(dirname(firecracker), basename(firecracker).replace("firecracker", "jailer"));
  const jailer = (await findProgram(options.jailerPath ?? beside)) ?? (await findProgram("jailer"));
  const paths = [...new Set([firecracker, jailer].filter((path) => path !== undefined))];
  return await Promise.all(paths.map((path) => trust(files, path)));
}

async function findTakenUsers(files: HostFiles, { first, last }: UserRange): Promise<string[]> {
  const taken: string[] = [];
  for (const path of ["/etc/passwd", "/etc/group"]) {
    for (const line of ((await files.read(path)) ?? "").split("\n")) {
      const [name, , id] = line.split(":");
      if (name && id && Number(id) >= first && Number(id) <= last) taken.push(`${name} of ${path}`);
    }
  }
  for (const path of ["/etc/subuid", "/etc/subgid"]) {
    for (const line of ((await files.read(path)) ?? "").split("\n")) {
      const [name, start, count] = line.split(":");
      const [from, to] = [Number(start), Number(start) + Number(count) - 1];
      if (name && from <= last && to >= first) taken.push(`${name}'s range ${from}-${to} of ${path}`);
    }
  }
  return taken;
}

async function readListeners(files: HostFiles): Promise<number[]> {
  const tables = await Promise.all(["/proc/net/tcp", "/proc/net/tcp6"].map((path) => files.read(path)));
  return tables.flatMap(listeningPorts);
}

/** The ports of /proc/net/tcp or tcp6 in state LISTEN (0A) on more than loopback. */
function listeningPorts(table: string | undefined): number[] {
  return (table ?? "").split("\n").flatMap((line) => {
    const [, local = "", , state] = line.trim().split(/\s+/);
    const [address = "", port = ""] = local.split(":");
    // Bytes of each 32-bit word in the host's order: 127.0.0.1 and ::1.
    const loopback = address.endsWith("7F") || address === "00000000000000000000000001000000";
    return state === "0A" && !loopback ? [Number.parseInt(port, 16)] : [];
  });
}
