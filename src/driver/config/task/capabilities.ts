// `cap_add`, `cap_drop` and `privileged` as docker reads them, to the set of capabilities that a task's programs can have.
import { ConfigError } from "../../errors.ts";

/** By number, as in Linux' capability.h. */
const names = [
  "CHOWN",
  "DAC_OVERRIDE",
  "DAC_READ_SEARCH",
  "FOWNER",
  "FSETID",
  "KILL",
  "SETGID",
  "SETUID",
  "SETPCAP",
  "LINUX_IMMUTABLE",
  "NET_BIND_SERVICE",
  "NET_BROADCAST",
  "NET_ADMIN",
  "NET_RAW",
  "IPC_LOCK",
  "IPC_OWNER",
  "SYS_MODULE",
  "SYS_RAWIO",
  "SYS_CHROOT",
  "SYS_PTRACE",
  "SYS_PACCT",
  "SYS_ADMIN",
  "SYS_BOOT",
  "SYS_NICE",
  "SYS_RESOURCE",
  "SYS_TIME",
  "SYS_TTY_CONFIG",
  "MKNOD",
  "LEASE",
  "AUDIT_WRITE",
  "AUDIT_CONTROL",
  "SETFCAP",
  "MAC_OVERRIDE",
  "MAC_ADMIN",
  "SYSLOG",
  "WAKE_ALARM",
  "BLOCK_SUSPEND",
  "AUDIT_READ",
  "PERFMON",
  "BPF",
  "CHECKPOINT_RESTORE",
] as const;

const dockerDefault = [
  "AUDIT_WRITE",
  "CHOWN",
  "DAC_OVERRIDE",
  "FOWNER",
  "FSETID",
  "KILL",
  "MKNOD",
  "NET_BIND_SERVICE",
  "NET_RAW",
  "SETFCAP",
  "SETGID",
  "SETPCAP",
  "SETUID",
  "SYS_CHROOT",
] as const;

/** The kernel of the guest may know more than this list: all means all. */
const everything = (1n << 64n) - 1n;
const setOf = (list: readonly (typeof names)[number][]): bigint =>
  list.reduce((set, name) => set | (1n << BigInt(names.indexOf(name))), 0n);

/** Bit n stands for capability n. */
export const defaultCapabilities = setOf(dockerDefault);

/** Names in either case, with or without CAP_; "all" stands for all. An addition wins over a removal. */
export function capabilitySet(options: {
  add: readonly string[];
  drop: readonly string[];
  privileged: boolean;
}): bigint {
  const add = parse("cap_add", options.add);
  const drop = parse("cap_drop", options.drop);
  if (options.privileged) return everything;
  if (add.all) return everything & ~drop.set;
  return ((drop.all ? 0n : defaultCapabilities) & ~drop.set) | add.set;
}

function parse(key: string, list: readonly string[]): { all: boolean; set: bigint } {
  let all = false;
  let set = 0n;
  for (const entry of list) {
    const name = entry.toUpperCase().replace(/^CAP_/, "");
    if (name === "ALL") {
      all = true;
      continue;
    }
    const index = (names as readonly string[]).indexOf(name);
    if (index < 0) throw new ConfigError(key, entry, 'must be a capability of Linux such as "NET_ADMIN", or "ALL"');
    set |= 1n << BigInt(index);
  }
  return { all, set };
}
