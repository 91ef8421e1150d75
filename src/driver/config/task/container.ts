// What a task's `config` says about the container's side of things: names and forms are those of Nomad's docker driver.
import { isIP } from "node:net";
import { ConfigError } from "../../errors.ts";
import { attr, type NamedSpec } from "../hcl-spec.ts";
import { type ConfigMap, optionalBoolean, optionalInteger, optionalString, optionalStrings } from "../values.ts";
import { capabilitySet } from "./capabilities.ts";
import { type Device, devices } from "./devices.ts";
import { type ResourceLimit, resourceLimits, type Sysctl, sysctls } from "./limits.ts";
import { type TmpfsMount, tmpfsMounts } from "./mounts.ts";

export interface ContainerSettings {
  /** Undefined: the VM's id, as docker takes the container's. */
  readonly hostname: string | undefined;
  /** An address may be `hostGateway`. */
  readonly extraHosts: readonly { readonly name: string; readonly address: string }[];
  readonly dns: {
    readonly servers: readonly string[];
    readonly searches: readonly string[];
    readonly options: readonly string[];
  };
  readonly additionalGroups: readonly string[];
  readonly capabilities: bigint;
  readonly privileged: boolean;
  /** /proc and /sys as the kernel shows them. */
  readonly unmasked: boolean;
  readonly noNewPrivileges: boolean;
  readonly readOnlyRoot: boolean;
  readonly shmSizeBytes: number;
  readonly tmpfsMounts: readonly TmpfsMount[];
  readonly devices: readonly Device[];
  readonly limits: readonly ResourceLimit[];
  readonly sysctls: readonly Sysctl[];
  /** 0: as many as the guest's kernel can bear. */
  readonly pidsLimit: number;
  readonly oomScoreAdjustment: number;
  readonly init: boolean;
  readonly terminal: boolean;
  readonly openStdin: boolean;
}

export const containerSchema: readonly NamedSpec[] = [
  "cap_add",
  "cap_drop",
  "devices",
  "dns_options",
  "dns_search_domains",
  "dns_servers",
  "extra_hosts",
  "group_add",
  "hostname",
  "init",
  "interactive",
  "mount",
  "mounts",
  "oom_score_adj",
  "pids_limit",
  "privileged",
  "readonly_rootfs",
  "security_opt",
  "shm_size",
  "sysctl",
  "tmpfs",
  "tty",
  "ulimit",
].map((name) => attr(name, "any"));

/** Linux' own limit. */
const longestHostname = 64;

/** Fails with ConfigError. */
export function parseContainer(config: ConfigMap): ContainerSettings {
  const privileged = optionalBoolean(config, "privileged") ?? false;
  const security = securityOptions(config);
  return {
    hostname: hostname(config),
    extraHosts: extraHosts(config),
    dns: {
      servers: dnsServers(config),
      searches: dnsWords(config, "dns_search_domains"),
      options: dnsWords(config, "dns_options"),
    },
    additionalGroups: optionalStrings(config, "group_add") ?? [],
    capabilities: capabilitySet({
      add: optionalStrings(config, "cap_add") ?? [],
      drop: optionalStrings(config, "cap_drop") ?? [],
      privileged,
    }),
    privileged,
    unmasked: privileged || security.unmasked,
    noNewPrivileges: security.noNewPrivileges,
    readOnlyRoot: optionalBoolean(config, "readonly_rootfs") ?? false,
    shmSizeBytes:
      optionalInteger(config, "shm_size", { minimum: 0, maximum: Number.MAX_SAFE_INTEGER, unit: "bytes" }) ?? 0,
    tmpfsMounts: tmpfsMounts(config),
    devices: devices(config),
    limits: resourceLimits(config),
    sysctls: sysctls(config),
    // docker's driver reads 0 and less as no limit.
    pidsLimit: Math.max(
      optionalInteger(config, "pids_limit", { minimum: -1, maximum: 4_194_304, unit: "processes" }) ?? 0,
      0,
    ),
    oomScoreAdjustment: optionalInteger(config, "oom_score_adj", { minimum: 0, maximum: 1000, unit: "points" }) ?? 0,
    init: optionalBoolean(config, "init") ?? false,
    terminal: optionalBoolean(config, "tty") ?? false,
    openStdin: optionalBoolean(config, "interactive") ?? false,
  };
}

function hostname(config: ConfigMap): string | undefined {
  const name = optionalString(config, "hostname");
  if (name === undefined || name === "") return undefined;
  if (!/^[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?$/.test(name) || name.length > longestHostname) {
    throw new ConfigError(
      "hostname",
      name,
      `must be letters, digits, "-" and "." and at most ${longestHostname} of them`,
    );
  }
  return name;
}

/** docker's word for the address by which the host is reached. */
export const hostGateway = "host-gateway";

/** "name:address", where an IPv6 address may stand in brackets; docker takes "=" for the colon too. */
function extraHosts(config: ConfigMap): ContainerSettings["extraHosts"] {
  return (optionalStrings(config, "extra_hosts") ?? []).map((entry) => {
    const [, name = "", address = ""] = /^([^\s:=]+)[:=]\[?([^\s\]]+)\]?$/.exec(entry) ?? [];
    if (isIP(address) === 0 && address !== hostGateway) {
      throw new ConfigError("extra_hosts", entry, 'must be "name:address", e.g. "db.example:10.0.0.5"');
    }
    return { name, address };
  });
}

function dnsServers(config: ConfigMap): string[] {
  const servers = optionalStrings(config, "dns_servers") ?? [];
  const wrong = servers.find((server) => isIP(server) === 0);
  if (wrong !== undefined) throw new ConfigError("dns_servers", wrong, "must be a list of IP addresses");
  return servers;
}

/** They become words of one line of resolv.conf. */
function dnsWords(config: ConfigMap, key: string): string[] {
  const words = optionalStrings(config, key) ?? [];
  const wrong = words.find((word) => !/^[^\s#;]+$/.test(word));
  if (wrong !== undefined) throw new ConfigError(key, wrong, "must be a list of single words");
  return words;
}

/** What docker gives to a host's security modules has nothing to act on: the VM is the boundary. */
function securityOptions(config: ConfigMap): { noNewPrivileges: boolean; unmasked: boolean } {
  let noNewPrivileges = false;
  let unmasked = false;
  for (const option of optionalStrings(config, "security_opt") ?? []) {
    const [, name = option, value = ""] = /^([^=:]+)[=:](.*)$/s.exec(option) ?? [];
    if (name === "no-new-privileges" && /^(?:true|false|)$/.test(value)) noNewPrivileges = value !== "false";
    else if (name === "systempaths" && value === "unconfined") unmasked = true;
    else if ((name === "seccomp" && value === "unconfined") || name === "apparmor" || name === "label") continue;
    else {
      throw new ConfigError(
        "security_opt",
        option,
        "is not known; there are no-new-privileges, systempaths=unconfined and seccomp=unconfined",
      );
    }
  }
  return { noNewPrivileges, unmasked };
}
