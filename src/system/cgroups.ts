// Control groups, both versions, by their files. Source: the kernel's Documentation/admin-guide/cgroup-v1 and cgroup-v2.
// A group is a list of directories: one for v2, one for each hierarchy of v1.
import { mkdir, readFile, rmdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pollUntil } from "./wait.ts";

const controllers = ["cpu", "cpuset", "memory", "pids", "hugetlb"] as const;
export type Controller = (typeof controllers)[number];

export interface CgroupHierarchies {
  readonly version: 1 | 2;
  /** The mount points of the controllers' hierarchies; v2 has one for all. A missing controller has none. */
  readonly mounts: Partial<Readonly<Record<Controller, string>>>;
}

/** Undefined if no hierarchy with controllers is mounted. */
export async function findCgroups(mountInfo?: string): Promise<CgroupHierarchies | undefined> {
  const text = mountInfo ?? (await readFile("/proc/self/mountinfo", "utf8").catch(() => ""));
  const mounts: Partial<Record<Controller, string>> = {};
  let unified: string | undefined;
  for (const line of text.split("\n")) {
    const [before = "", after = ""] = line.split(" - ");
    const path = before.split(" ")[4];
    const [type, , options = ""] = after.split(" ");
    if (path === undefined) continue;
    if (type === "cgroup2") unified ??= path;
    if (type !== "cgroup") continue;
    for (const controller of controllers) {
      if (options.split(",").includes(controller)) mounts[controller] ??= path;
    }
  }
  // In the hybrid layout the unified hierarchy has no controllers.
  if (Object.keys(mounts).length > 0) return { version: 1, mounts };
  if (unified === undefined) return undefined;
  return { version: 2, mounts: Object.fromEntries(controllers.map((controller) => [controller, unified])) };
}

export interface GroupLimits {
  readonly memoryBytes?: number | undefined;
  /** As Nomad and docker count: 1024 is an ordinary share. */
  readonly cpuShares?: number | undefined;
  /** Percent of one core. */
  readonly cpuPercent?: number | undefined;
  /** Core numbers as "0,2-3"; empty for those of the parent, until `setCores`. */
  readonly cpuset?: string | undefined;
  readonly pids?: number | undefined;
  /** For huge pages of 2 MiB, which the memory limit leaves out. */
  readonly hugePageBytes?: number | undefined;
}

/** The directories that `createGroup` makes for these limits. */
export function groupDirectories(options: {
  hierarchies: CgroupHierarchies;
  parent: string;
  name: string;
  limits: GroupLimits;
}): string[] {
  const { mounts } = options.hierarchies;
  const wanted = neededControllers(options.limits).flatMap((controller) => mounts[controller] ?? []);
  return [...new Set(wanted)].map((mount) => join(mount, options.parent, options.name));
}

/** A v1 cpuset must be filled before a process may join it, so it is left out if the limits name no cores. */
function neededControllers(limits: GroupLimits): Controller[] {
  return controllers.filter((controller) => controller !== "cpuset" || limits.cpuset !== undefined);
}

/** Fails as the file system does, naming the file. */
export async function createGroup(options: {
  hierarchies: CgroupHierarchies;
  parent: string;
  name: string;
  limits: GroupLimits;
}): Promise<string[]> {
  const { hierarchies, parent, limits } = options;
  const directories = groupDirectories(options);
  for (const directory of directories) await mkdir(directory, { recursive: true, mode: 0o755 });
  if (hierarchies.version === 2) {
    const root = hierarchies.mounts.memory ?? "";
    for (const directory of [root, ...ancestors(root, parent)]) await enableControllers(directory);
  } else if (limits.cpuset !== undefined && hierarchies.mounts.cpuset !== undefined) {
    const root = hierarchies.mounts.cpuset;
    for (const directory of [...ancestors(root, parent), join(root, parent, options.name)]) await fillCpuset(directory);
  }
  for (const setting of settingsOf(hierarchies.version, limits)) {
    const mount = hierarchies.mounts[setting.controller];
    if (mount === undefined) continue;
    const path = join(mount, parent, options.name, setting.file);
    // The VM runs without a limit whose file this kernel does not have.
    await writeFile(path, setting.value, { flag: "r+" }).catch((error: NodeJS.ErrnoException) => {
      if (setting.optional !== true || error.code !== "ENOENT") throw error;
    });
  }
  return directories;
}

/** The directories from below `root` down to `parent`. */
function ancestors(root: string, parent: string): string[] {
  const names = parent.split("/");
  return names.map((_, index) => join(root, ...names.slice(0, index + 1)));
}

async function enableControllers(directory: string): Promise<void> {
  const available = (await readFile(join(directory, "cgroup.controllers"), "utf8")).trim().split(/\s+/);
  const enabled = (await readFile(join(directory, "cgroup.subtree_control"), "utf8")).trim().split(/\s+/);
  const missing = controllers.filter((name) => available.includes(name) && !enabled.includes(name));
  if (missing.length === 0) return;
  await writeFile(join(directory, "cgroup.subtree_control"), missing.map((name) => `+${name}`).join(" "));
}

/** A new v1 cpuset is empty; it starts as its parent is. */
async function fillCpuset(directory: string): Promise<void> {
  for (const file of ["cpuset.cpus", "cpuset.mems"]) {
    if ((await readFile(join(directory, file), "utf8")).trim() !== "") continue;
    await writeFile(join(directory, file), (await readFile(join(directory, "..", file), "utf8")).trim());
  }
}

interface Setting {
  readonly controller: Controller;
  readonly file: string;
  readonly value: string;
  readonly optional?: true | undefined;
}

const periodUs = 100_000;

function settingsOf(version: 1 | 2, limits: GroupLimits): Setting[] {
  const { memoryBytes, cpuShares, cpuPercent, cpuset, pids, hugePageBytes } = limits;
  const quotaUs = cpuPercent === undefined ? 0 : Math.max(Math.round((cpuPercent / 100) * periodUs), 1000);
  const settings: Setting[] = [];
  const add = (controller: Controller, file: string, value: string, optional?: true): void => {
    settings.push({ controller, file, value, optional });
  };
  if (memoryBytes !== undefined) {
    add("memory", version === 2 ? "memory.max" : "memory.limit_in_bytes", `${memoryBytes}`);
    // A guest's memory must not end up on a swap device. v1 counts both together.
    if (version === 2) add("memory", "memory.swap.max", "0", true);
    else add("memory", "memory.memsw.limit_in_bytes", `${memoryBytes}`, true);
  }
  if (cpuShares !== undefined) {
    if (version === 2) add("cpu", "cpu.weight", `${cpuWeight(cpuShares)}`);
    else add("cpu", "cpu.shares", `${Math.min(Math.max(Math.round(cpuShares), 2), 262_144)}`);
  }
  if (cpuPercent !== undefined) {
    if (version === 2) {
      add("cpu", "cpu.max", `${quotaUs} ${periodUs}`);
    } else {
      add("cpu", "cpu.cfs_period_us", `${periodUs}`);
      add("cpu", "cpu.cfs_quota_us", `${quotaUs}`);
    }
  }
  if (cpuset !== undefined && cpuset !== "") add("cpuset", "cpuset.cpus", cpuset);
  if (pids !== undefined) add("pids", "pids.max", `${pids}`);
  if (hugePageBytes !== undefined) {
    // Hosts whose kernel has no such pages lack the file.
    add("hugetlb", version === 2 ? "hugetlb.2MB.max" : "hugetlb.2MB.limit_in_bytes", `${hugePageBytes}`, true);
  }
  return settings;
}

/** The cores that the processes of a group may use, as "0,2-3"; undefined if there is no such group, or none of cpuset. */
export async function effectiveCores(directory: string): Promise<string | undefined> {
  // v2's file, then v1's.
  for (const file of ["cpuset.cpus.effective", "cpuset.effective_cpus"]) {
    const text = await readFile(join(directory, file), "utf8").catch(() => "");
    if (text.trim() !== "") return text.trim();
  }
  return undefined;
}

/** Moves a group that has a cpuset to other cores. Fails as the file system does if no directory of it has a cpuset. */
export async function setCores(directories: readonly string[], cores: string): Promise<void> {
  const writes = directories.map((directory) => writeFile(join(directory, "cpuset.cpus"), cores, { flag: "r+" }));
  const results = await Promise.allSettled(writes);
  if (results.some(({ status }) => status === "fulfilled")) return;
  const failures = results.filter((result) => result.status === "rejected").map(({ reason }): unknown => reason);
  // Hierarchies of other controllers have no such file.
  throw failures.find((reason) => (reason as NodeJS.ErrnoException).code !== "ENOENT") ?? failures[0];
}

/** From v1's range of 2 to 262144 to v2's of 1 to 10000, as runc and Nomad convert. */
export function cpuWeight(shares: number): number {
  const clamped = Math.min(Math.max(shares, 2), 262_144);
  return Math.floor(1 + ((clamped - 2) * 9999) / 262_142);
}

export async function processesOf(directories: readonly string[]): Promise<number[]> {
  const lists = directories.map((directory) => readFile(join(directory, "cgroup.procs"), "utf8").catch(() => ""));
  const pids = (await Promise.all(lists)).flatMap((text) => text.split("\n").filter(Boolean).map(Number));
  return [...new Set(pids)];
}

/** Sends SIGKILL to every process in the group. Resolves with true once it is empty, with false at the deadline. */
export async function emptyGroup(options: { directories: readonly string[]; timeoutMs: number }): Promise<boolean> {
  const { directories, timeoutMs } = options;
  return await pollUntil({
    attempt: async () => {
      const pids = await processesOf(directories);
      for (const pid of pids) {
        try {
          process.kill(pid, "SIGKILL");
        } catch {
          // It ended meanwhile.
        }
      }
      return pids.length === 0 ? true : undefined;
    },
    intervalMs: 10,
    timeoutMs,
    onTimeout: () => new Error("not empty"),
  }).catch(() => false);
}

/**
 * Removes an empty group; a group that is gone already is not an error. A dead process leaves its group a moment after
 * its parent reaped it.
 */
export async function removeGroup(options: { directories: readonly string[]; timeoutMs: number }): Promise<void> {
  for (const directory of options.directories) {
    let last: unknown;
    await pollUntil({
      attempt: async () => {
        try {
          await rmdir(directory);
        } catch (error) {
          last = error;
          const { code } = error as NodeJS.ErrnoException;
          if (code === "EBUSY") return undefined;
          if (code !== "ENOENT") throw error;
        }
        return true;
      },
      intervalMs: 10,
      timeoutMs: options.timeoutMs,
      onTimeout: () => new Error(`can't remove ${directory}: ${(last as Error).message}`),
    });
  }
}

/** The number of processes in the group that the kernel killed because memory ran out. */
export async function oomKills(directories: readonly string[]): Promise<number> {
  let kills = 0;
  for (const directory of directories) {
    for (const file of ["memory.events", "memory.oom_control"]) {
      const text = await readFile(join(directory, file), "utf8").catch(() => "");
      kills += Number(/^oom_kill (\d+)$/m.exec(text)?.[1] ?? 0);
    }
  }
  return kills;
}
