// Finds who has a port of this host: the socket in /proc/net/{tcp,udp}{,6} (proc_pid_net(5)), its inode among the descriptors of
// all processes.
import { readdir, readFile, readlink } from "node:fs/promises";

export interface PortHolder {
  readonly name: string;
  readonly pid: number;
}

export interface HostPort {
  readonly protocol: "tcp" | "udp";
  /** IPv4; "0.0.0.0" is all addresses of the host. */
  readonly address: string;
  readonly port: number;
}

/** Undefined if no process that this one can see has it. The answer may be old: use it for messages only. */
export async function findPortHolder(wanted: HostPort): Promise<PortHolder | undefined> {
  const tables = ["tcp", "udp"] as const;
  // TCP's tables have only sockets that listen or are connected. A supervisor's socket is neither, but it holds UDP as well.
  for (const protocol of tables.toSorted((a, b) => Number(b === wanted.protocol) - Number(a === wanted.protocol))) {
    const inodes = new Set<string>();
    for (const family of ["", "6"]) {
      const text = await readFile(`/proc/net/${protocol}${family}`, "latin1").catch(() => "");
      for (const inode of inodesAt(text, wanted)) inodes.add(inode);
    }
    const holder = await processWith(inodes);
    if (holder !== undefined) return holder;
  }
  return undefined;
}

/** The lines are `sl: LOCAL:PORT REMOTE:PORT st tx:rx tr:when retrnsmt uid timeout inode ...`, their addresses in hexadecimal. */
export function inodesAt(table: string, wanted: Pick<HostPort, "address" | "port">): string[] {
  const port = wanted.port.toString(16).toUpperCase().padStart(4, "0");
  const own = hexOf(wanted.address);
  return table.split("\n").flatMap((line) => {
    const [, local = "", , , , , , , , inode = "0"] = line.trim().split(/\s+/);
    const [address = "", localPort] = local.split(":");
    if (localPort !== port || inode === "0") return [];
    // An IPv4 address in an IPv6 table has ::ffff: before it.
    const isAll = /^0+$/.test(address);
    return isAll || wanted.address === "0.0.0.0" || address.endsWith(own) ? [inode] : [];
  });
}

/** As the kernel prints it on x86-64: the bytes in reverse order. */
function hexOf(address: string): string {
  const bytes = address.split(".").map((part) => Number(part).toString(16).toUpperCase().padStart(2, "0"));
  return bytes.toReversed().join("");
}

async function processWith(inodes: ReadonlySet<string>): Promise<PortHolder | undefined> {
  if (inodes.size === 0) return undefined;
  const wanted = new Set([...inodes].map((inode) => `socket:[${inode}]`));
  for (const name of await readdir("/proc")) {
    const pid = Number(name);
    if (!Number.isInteger(pid)) continue;
    for (const fd of await readdir(`/proc/${pid}/fd`).catch(() => [])) {
      const target = await readlink(`/proc/${pid}/fd/${fd}`).catch(() => "");
      if (!wanted.has(target)) continue;
      const command = await readFile(`/proc/${pid}/comm`, "utf8").catch(() => "");
      return { name: command.trim(), pid };
    }
  }
  return undefined;
}
