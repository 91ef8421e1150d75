// The `config` block of the plugin in the agent's configuration.
import { isHostPattern } from "../../../images/registry/registry-policy.ts";
import type { ImageAccess } from "../../../images/store/image-store.ts";
import { maxBasePathBytes } from "../../../machine/records/files.ts";
import type { VmmChoice } from "../../../vmm/select-vmm.ts";
import { ConfigError } from "../../errors.ts";
import { key, labelledBlocks, type Parsed, readTable } from "../table.ts";
import { boolean, integer, oneOf, refine, string, strings, words } from "../values.ts";
import { diskBlock } from "./disk.ts";
import { jailerBlock } from "./jailer.ts";
import { networkBlock } from "./network.ts";

const absolutePath = refine(string, (path, name) => {
  if (!path.startsWith("/")) throw new ConfigError(name, path, "must be an absolute path");
  return path;
});

const absolutePaths = refine(strings, (paths, name) => {
  const relative = paths.find((path) => !path.startsWith("/"));
  if (relative === undefined) return paths;
  throw new ConfigError(name, relative, "must be a list of absolute paths");
});

const hostPatterns = refine(strings, (patterns, name) => {
  const wrong = patterns.find((pattern) => !isHostPattern(pattern));
  if (wrong === undefined) return patterns;
  throw new ConfigError(name, wrong, 'must be a list of hosts such as "docker.io", "*.example.com" or "10.0.0.5:5000"');
});

const defaultBasePath = "/var/lib/litegix-fc-driver";

const basePath = refine(absolutePath, (given, name) => {
  const path = given.replace(/\/+$/, "");
  if (Buffer.byteLength(path) <= maxBasePathBytes) return path;
  const rule = `must have at most ${maxBasePathBytes} bytes (unix socket paths below it end at 107)`;
  throw new ConfigError(name, path, rule);
});

export const pluginTable = {
  vmlinuxPath: key("vmlinux_path", {
    reader: absolutePath,
    emptyIsAbsent: true,
    absent: "the newest Debian cloud kernel in /boot",
    flag: "file",
    doc: "The guest's kernel: an ELF `vmlinux`, or a bzImage, from which the driver takes the ELF.",
  }),
  basePath: key("rootfs_base_path", {
    reader: basePath,
    emptyIsAbsent: true,
    default: defaultBasePath,
    flag: "directory",
    doc: `The directory for images, kernels and VMs. Its path has at most ${maxBasePathBytes} bytes. Two agents on one host need different ones. Only root may write it and the directories above it.`,
  }),
  vmm: key("vmm", {
    reader: oneOf<VmmChoice>("auto", "firecracker", "qemu"),
    default: "auto",
    flag: "program",
    doc: 'The program that runs the VMs. "auto" takes Firecracker if it is installed, else QEMU. It never goes from an installed Firecracker to QEMU: if KVM runs no guests, the node is unhealthy. The other two insist.',
  }),
  firecrackerPath: key("firecracker_path", {
    reader: absolutePath,
    emptyIsAbsent: true,
    absent: "`firecracker` on PATH",
    flag: "file",
    doc: "Firecracker, 1.14 or newer.",
  }),
  jailerPath: key("jailer_path", {
    reader: absolutePath,
    emptyIsAbsent: true,
    absent: "`jailer` beside Firecracker, then on PATH",
    flag: "file",
    doc: "Firecracker's jailer, from the same release.",
  }),
  jailer: jailerBlock,
  qemuPath: key("qemu_path", {
    reader: absolutePath,
    emptyIsAbsent: true,
    absent: "`qemu-system-x86_64` on PATH",
    flag: "file",
    doc: "QEMU, which stands in for Firecracker on hosts without it.",
  }),
  allowedHostPaths: key("allowed_host_paths", {
    reader: absolutePaths,
    default: [],
    doc: "The files and devices of the host that a job may name in `drive.path_on_host` or `boot_source`: these paths and everything below them. A link works if it leads to such a path. Only root should be able to write them.",
  }),
  allowOversize: key("allow_oversize", {
    reader: boolean,
    hcl: "bool",
    default: false,
    doc: "Whether a VM may be larger than its job's reservation: `mem_size` than `memory` or `memory_max`, `vpu_count` than `cores` or the host's cores, `storage_opt` than `disk.max_size`. It also allows huge pages. Nomad then knows nothing of the difference.",
  }),
  allowHugePages: key("allow_huge_pages", {
    reader: boolean,
    hcl: "bool",
    default: false,
    doc: 'Whether a job may set `machine_config.huge_pages = "2M"`. Nomad does not account for the host\'s huge pages.',
  }),
  disk: diskBlock,
  network: networkBlock,
  registries: labelledBlocks("registry", "host", {
    doc: "How the driver reaches one registry, such as `docker.io`.",
    rows: {
      mirrors: key("mirrors", {
        reader: words,
        hcl: "list(string)",
        default: [],
        doc: "Base URLs of mirrors. The driver asks them in order, and the registry itself last.",
      }),
      plainHttp: key("plain_http", {
        reader: boolean,
        hcl: "bool",
        default: false,
        doc: "Whether the driver uses HTTP without TLS. Without a `registry` block it does so for registries on loopback only.",
      }),
    },
  }),
  registriesAllowed: key("registries_allowed", {
    reader: hostPatterns,
    hcl: "list(string)",
    absent: "every registry but those on this host and at link-local addresses",
    doc: 'The registries that jobs may name: a host or an address, optionally with `*.` before it and `:PORT` behind it, or `"*"` for every registry. Registries on this host, at link-local addresses and in `network.egress_deny` count only if an entry other than `"*"`, or a `registry` block, names them.',
  }),
  imageAccess: key("image_access", {
    reader: oneOf<ImageAccess>("verify", "cached"),
    default: "verify",
    doc: 'This decides which jobs get an image that the host pulled with credentials. With "verify" the driver asks the registry, with the credentials of the job. With "cached" every job on this host gets it, as with docker\'s driver.',
  }),
  pullMemoryMaxMib: key("pull_memory_max", {
    reader: integer({ min: 512, unit: "MiB" }),
    default: 2_048,
    doc: "The memory that the process which pulls and converts an image may use.",
  }),
};

export type PluginSettings = Parsed<typeof pluginTable>;

/** Fails with ConfigError. */
export function parsePluginConfig(config: unknown): PluginSettings {
  return readTable(pluginTable, config);
}

/** The directory with the VMs, whatever is wrong with the rest. Never fails: a base path that is itself refused never had a VM. */
export function basePathOf(config: unknown): string {
  try {
    return readTable({ basePath: pluginTable.basePath }, config).basePath;
  } catch {
    return defaultBasePath;
  }
}
