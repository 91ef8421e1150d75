// The container's side of a task's `config` block: names and forms are those of Nomad's docker driver.
import { isIP } from "node:net";
import { ConfigError } from "../../errors.ts";
import { key, readTable } from "../table.ts";
import { boolean, integer, refine, string, strings } from "../values.ts";
import { capabilitySet } from "./capabilities.ts";
import { devicesBlock } from "./devices.ts";
import { limitsKey, sysctlKey } from "./limits.ts";
import { mountTable } from "./mounts.ts";

/** Linux' own limit. */
const maxHostname = 64;

const hostname = refine(string, (name, path) => {
  if (/^[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?$/.test(name) && name.length <= maxHostname) return name;
  throw new ConfigError(path, name, `must be letters, digits, "-" and "." and at most ${maxHostname} of them`);
});

/** docker's word for the address at which a container reaches the host. */
export const hostGateway = "host-gateway";

/** docker takes "=" for the colon too. */
const extraHosts = refine(strings, (entries, path) =>
  entries.map((entry) => {
    const [, name = "", address = ""] = /^([^\s:=]+)[:=]\[?([^\s\]]+)\]?$/.exec(entry) ?? [];
    if (isIP(address) === 0 && address !== hostGateway) {
      throw new ConfigError(path, entry, 'must be "name:address", e.g. "db.example:10.0.0.5"');
    }
    return { name, address };
  }),
);

const addresses = refine(strings, (servers, path) => {
  const wrong = servers.find((server) => isIP(server) === 0);
  if (wrong !== undefined) throw new ConfigError(path, wrong, "must be a list of IP addresses");
  return servers;
});

/** They become words of one line of resolv.conf. */
const resolverWords = refine(strings, (list, path) => {
  const wrong = list.find((word) => !/^[^\s#;]+$/.test(word));
  if (wrong !== undefined) throw new ConfigError(path, wrong, "must be a list of single words");
  return list;
});

/** The options of a host's security modules have nothing to act on: the VM is the boundary. */
const securityOptions = refine(strings, (options, path) => {
  let noNewPrivileges = false;
  let unmasked = false;
  for (const option of options) {
    const [, name = option, value = ""] = /^([^=:]+)[=:](.*)$/s.exec(option) ?? [];
    if (name === "no-new-privileges" && /^(?:true|false|)$/.test(value)) noNewPrivileges = value !== "false";
    else if (name === "systempaths" && value === "unconfined") unmasked = true;
    else if ((name === "seccomp" && value === "unconfined") || name === "apparmor" || name === "label") continue;
    else {
      const rule = "is not known; there are no-new-privileges, systempaths=unconfined and seccomp=unconfined";
      throw new ConfigError(path, option, rule);
    }
  }
  return { noNewPrivileges, unmasked };
});

/** docker's driver reads 0 and less as no limit. */
const pidsLimit = refine(integer({ min: -1, max: 4_194_304, unit: "processes" }), (limit) => Math.max(limit, 0));

export const containerTable = {
  hostname: key("hostname", {
    reader: hostname,
    emptyIsAbsent: true,
    absent: "the VM's id, as docker takes the container's",
    doc: `The guest's name: letters, digits, "-" and ".", at most ${maxHostname} of them.`,
  }),
  extraHosts: key("extra_hosts", {
    reader: extraHosts,
    default: [],
    doc: `Lines for /etc/hosts, as "name:address". The address \`${hostGateway}\` is the host's end of the VM's own network; a group's network refuses it.`,
  }),
  dnsServers: key("dns_servers", {
    reader: addresses,
    default: [],
    doc: "Name servers for /etc/resolv.conf. If the job has a `dns` block, that block is the whole file.",
  }),
  dnsSearches: key("dns_search_domains", {
    reader: resolverWords,
    default: [],
    doc: "Search domains for /etc/resolv.conf.",
  }),
  dnsOptions: key("dns_options", { reader: resolverWords, default: [], doc: "Options for /etc/resolv.conf." }),
  additionalGroups: key("group_add", {
    reader: strings,
    default: [],
    doc: "More groups of the task's user, by the image's names or by number.",
  }),
  capAdd: key("cap_add", {
    reader: strings,
    default: [],
    doc: 'Capabilities on top of docker\'s 14, with or without "CAP_"; "ALL" stands for all. An addition wins over a removal.',
  }),
  capDrop: key("cap_drop", {
    reader: strings,
    default: [],
    doc: "Capabilities that the task does not get, in the same form.",
  }),
  privileged: key("privileged", {
    reader: boolean,
    default: false,
    doc: "Whether the task gets all capabilities and all devices of the guest, with nothing masked and /sys writable. The VM stays the boundary to the host.",
  }),
  security: key("security_opt", {
    reader: securityOptions,
    default: [],
    doc: 'Security options. "no-new-privileges" and "systempaths=unconfined" work as with docker. "seccomp=unconfined", "apparmor=..." and "label=..." change nothing in a VM. The driver refuses all else.',
  }),
  readOnlyRoot: key("readonly_rootfs", {
    reader: boolean,
    default: false,
    doc: "Whether the root is read-only, except /alloc, /local, /secrets, /dev and tmpfs mounts.",
  }),
  shmSizeBytes: key("shm_size", {
    reader: integer({ min: 0, unit: "bytes" }),
    default: 0,
    doc: "The size of /dev/shm; 0 means 64 MiB.",
  }),
  ...mountTable,
  devices: devicesBlock,
  limits: limitsKey,
  sysctls: sysctlKey,
  pidsLimit: key("pids_limit", {
    reader: pidsLimit,
    default: 0,
    doc: "The largest number of the task's processes. 0 and -1 lift the limit; then the guest's kernel sets it.",
  }),
  oomScoreAdjustment: key("oom_score_adj", {
    reader: integer({ min: 0, max: 1000, unit: "points" }),
    default: 0,
    doc: "The higher it is, the earlier the guest's kernel kills the task if memory runs out.",
  }),
  oomWatch: key("oom_watch", {
    reader: boolean,
    default: true,
    doc: "Whether the guest's init kills a process of a task that thrashes: one whose data leave its programs no memory.",
  }),
  init: key("init", {
    reader: boolean,
    default: false,
    doc: "Whether a small init runs as process 1, passes signals on and reaps orphans.",
  }),
  terminal: key("tty", {
    reader: boolean,
    default: false,
    doc: "Whether the task gets a terminal. All its output is standard output then.",
  }),
  openStdin: key("interactive", {
    reader: boolean,
    default: false,
    doc: "Whether the task's standard input stays open.",
  }),
};

export type ContainerSettings = ReturnType<typeof parseContainer>;

/** Fails with ConfigError. */
export function parseContainer(config: unknown) {
  const { dnsServers, dnsSearches, dnsOptions, capAdd, capDrop, security, tmpfs, mounts, mount, ...settings } =
    readTable(containerTable, config);
  const { privileged } = settings;
  return {
    ...settings,
    dns: { servers: dnsServers, searches: dnsSearches, options: dnsOptions },
    capabilities: capabilitySet({ add: capAdd, drop: capDrop, privileged }),
    /** /proc and /sys as the kernel shows them. */
    unmasked: privileged || security.unmasked,
    noNewPrivileges: security.noNewPrivileges,
    /** A later mount on a path takes the place of an earlier one. */
    tmpfsMounts: [...new Map([...tmpfs, ...mounts, ...mount].map((each) => [each.path, each])).values()],
  };
}
