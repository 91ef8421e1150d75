// The rights of a process on the host, as /proc and the cgroups' files show them.
import { readFile, readlink } from "node:fs/promises";
import { join } from "node:path";
import { findCgroups } from "../../../src/system/cgroups.ts";

const namespaceKinds = ["mnt", "net", "ipc", "uts", "cgroup", "pid"] as const;

export interface SeenRights {
  readonly uid: number;
  /** Effective and bounding capabilities, hexadecimal. */
  readonly effective: string;
  readonly bounding: string;
  readonly noNewPrivileges: boolean;
  /** 2: a filter. */
  readonly seccomp: number;
  /** The namespaces that are not this process's. */
  readonly namespaces: readonly string[];
  /** Its memory cgroup, relative to the hierarchy's root, and the limit there. */
  readonly cgroup: string;
  readonly memoryLimitMib: number | undefined;
  /** Mount points in its file system, with their options. */
  readonly mounts: readonly string[];
}

export async function rightsOf(pid: number): Promise<SeenRights> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  const field = (name: string): string => new RegExp(`^${name}:\\s+(\\S+)`, "m").exec(status)?.[1] ?? "";
  const namespaces: string[] = [];
  for (const kind of namespaceKinds) {
    const [theirs, own] = await Promise.all([readlink(`/proc/${pid}/ns/${kind}`), readlink(`/proc/self/ns/${kind}`)]);
    if (theirs !== own) namespaces.push(kind);
  }
  const cgroups = await findCgroups();
  const text = await readFile(`/proc/${pid}/cgroup`, "utf8");
  const line = cgroups?.version === 2 ? /^0::(.*)$/m : /^\d+:(?:\S*,)?memory(?:,\S*)?:(.*)$/m;
  const cgroup = line.exec(text)?.[1] ?? "";
  const file = cgroups?.version === 2 ? "memory.max" : "memory.limit_in_bytes";
  const limit = Number(await readFile(join(cgroups?.mounts.memory ?? "", cgroup, file), "utf8").catch(() => "none"));
  const mounts = await readFile(`/proc/${pid}/mountinfo`, "utf8");
  return {
    uid: Number(field("Uid")),
    effective: field("CapEff"),
    bounding: field("CapBnd"),
    noNewPrivileges: field("NoNewPrivs") === "1",
    seccomp: Number(field("Seccomp")),
    namespaces,
    cgroup,
    memoryLimitMib: Number.isSafeInteger(limit) ? limit / 1024 / 1024 : undefined,
    mounts: mounts
      .trimEnd()
      .split("\n")
      .map((each) => each.split(" ").slice(4, 6).join(" ")),
  };
}

/** A row of a table: the process and its rights but for its mounts. */
export function describeRights(name: string, rights: SeenRights): string {
  const { uid, effective, bounding, noNewPrivileges, seccomp, namespaces, cgroup, memoryLimitMib } = rights;
  return `${name}: uid ${uid}, CapEff ${effective}, CapBnd ${bounding}, NoNewPrivs ${Number(noNewPrivileges)}, Seccomp ${seccomp}, own namespaces ${namespaces.join(" ") || "none"}, cgroup ${cgroup} (${memoryLimitMib?.toFixed(0) ?? "no"} MiB)`;
}
