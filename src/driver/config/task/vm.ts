// What a job says of its VM in the words of Firecracker's API: `boot_source`, `machine_config`, `drive`, `balloon` and so on.
// What follows from the host or from other settings is checked in vm-rules.ts.
import type { CpuTemplate } from "../../../gen/firecracker/api.ts";
import type { ExtraDrive, VmOptions } from "../../../vmm/vm-options.ts";
import { ConfigError } from "../../errors.ts";
import { attr, block, blockList, type NamedSpec, object } from "../hcl-spec.ts";
import {
  asConfigMap,
  type ConfigMap,
  optionalBlocks,
  optionalBoolean,
  optionalInteger,
  optionalString,
} from "../values.ts";
import { bucketSpec, limiterBlock, optionalBlock, optionalBucket, optionalLimiter } from "./vm-limiters.ts";

export interface BootSource {
  /** Behind the driver's own. */
  readonly bootArgs: readonly string[];
  /** Instead of the plugin's vmlinux_path. */
  readonly kernelImagePath: string | undefined;
  /** Unpacked over the driver's own initramfs. */
  readonly initrdPath: string | undefined;
}

export interface VmSettings {
  readonly bootSource: BootSource;
  readonly options: VmOptions;
}

export const vmSchema: readonly NamedSpec[] = [
  block("boot_source", object(attr("boot_args", "any"), attr("kernel_image_path", "any"), attr("initrd_path", "any"))),
  block(
    "machine_config",
    object(
      attr("smt", "any"),
      attr("cpu_template", "any"),
      attr("huge_pages", "any"),
      attr("track_dirty_pages", "any"),
    ),
  ),
  // "any" in repeated blocks makes Nomad panic.
  blockList(
    "drive",
    object(
      ...["drive_id", "path_on_host", "cache_type", "io_engine"].map((name) => attr(name, "string")),
      attr("is_read_only", "bool"),
      limiterBlock("rate_limiter"),
    ),
  ),
  ...["rate_limiter", "rx_rate_limiter", "tx_rate_limiter"].map(limiterBlock),
  block(
    "balloon",
    object(
      ...["amount_mib", "deflate_on_oom", "stats_polling_interval_s", "free_page_hinting", "free_page_reporting"].map(
        (name) => attr(name, "any"),
      ),
    ),
  ),
  block("entropy", object(limiterBlock("rate_limiter"))),
  block(
    "mmds",
    object(attr("version", "any"), attr("ipv4_address", "any"), attr("imds_compat", "any"), attr("contents", "any")),
  ),
  block("serial", object(block("rate_limiter", bucketSpec))),
  block("logger", object(...["level", "show_level", "show_log_origin", "module"].map((name) => attr(name, "any")))),
  block("metrics", object(attr("enabled", "any"))),
];

/** Fails with ConfigError. */
export function parseVm(config: ConfigMap): VmSettings {
  return {
    bootSource: bootSource(optionalBlock(config, "boot_source") ?? {}),
    options: present({
      machineConfig: machineConfig(optionalBlock(config, "machine_config")),
      drives: drives(config),
      rateLimiter: optionalLimiter(config, "rate_limiter"),
      rxRateLimiter: optionalLimiter(config, "rx_rate_limiter"),
      txRateLimiter: optionalLimiter(config, "tx_rate_limiter"),
      balloon: balloon(optionalBlock(config, "balloon")),
      entropy: entropy(optionalBlock(config, "entropy")),
      mmds: mmds(optionalBlock(config, "mmds")),
      serial: serial(optionalBlock(config, "serial")),
      logger: logger(optionalBlock(config, "logger")),
      metrics: metrics(optionalBlock(config, "metrics")),
    }),
  };
}

/** Without the fields that are undefined. */
function present<T extends object>(fields: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>;
  };
}

/** The values under the names that messages should have. */
function named(map: ConfigMap, where: string): ConfigMap {
  return Object.fromEntries(Object.entries(map).map(([key, value]) => [`${where}.${key}`, value]));
}

const ownArguments = ["console", "init", "rdinit", "root", "panic", "reboot", "nomodule", "initrd", "litegix_probe"];
const longestBootArgs = 1024;

function bootSource(map: ConfigMap): BootSource {
  const fields = named(map, "boot_source");
  const text = optionalString(fields, "boot_source.boot_args") ?? "";
  if (!/^[\x20-\x7e]*$/.test(text) || text.length > longestBootArgs) {
    const rule = `must be printable ASCII of at most ${longestBootArgs} characters`;
    throw new ConfigError("boot_source.boot_args", text, rule);
  }
  const bootArgs = text.split(" ").filter((word) => word !== "");
  for (const word of bootArgs) {
    const [name = ""] = word.split("=");
    if (!ownArguments.includes(name) && name !== "--") continue;
    throw new ConfigError("boot_source.boot_args", text, `must not hold ${name}: the driver sets it`);
  }
  return {
    bootArgs,
    kernelImagePath: absolutePath(fields, "boot_source.kernel_image_path"),
    initrdPath: absolutePath(fields, "boot_source.initrd_path"),
  };
}

function absolutePath(map: ConfigMap, key: string): string | undefined {
  const path = optionalString(map, key);
  if (path === undefined || path.startsWith("/")) return path;
  throw new ConfigError(key, path, "must be an absolute path of the host");
}

function choice<T extends string>(map: ConfigMap, key: string, values: readonly T[]): T | undefined {
  const text = optionalString(map, key);
  if (text === undefined) return undefined;
  const found = values.find((value) => value === text);
  if (found === undefined) throw new ConfigError(key, text, `must be one of ${values.join(", ")}`);
  return found;
}

const cpuTemplates: readonly CpuTemplate[] = ["None", "C3", "T2", "T2S", "T2CL", "T2A", "V1N1"];

function machineConfig(map: ConfigMap | undefined): VmOptions["machineConfig"] {
  if (map === undefined) return undefined;
  const fields = named(map, "machine_config");
  return present({
    smt: optionalBoolean(fields, "machine_config.smt"),
    cpu_template: choice(fields, "machine_config.cpu_template", cpuTemplates),
    huge_pages: choice(fields, "machine_config.huge_pages", ["None", "2M"]),
    track_dirty_pages: optionalBoolean(fields, "machine_config.track_dirty_pages"),
  });
}

function drives(config: ConfigMap): ExtraDrive[] | undefined {
  const found = optionalBlocks(config, "drive").map((map): ExtraDrive => {
    const id = optionalString(map, "drive_id") ?? "";
    if (!/^\w{1,64}$/.test(id) || /^drive\d+$/.test(id)) {
      throw new ConfigError("drive.drive_id", id, 'must be of letters, digits and "_", and not "drive" with a number');
    }
    const where = `drive ${id}`;
    const fields = named(map, where);
    const path = absolutePath(fields, `${where}.path_on_host`);
    if (path === undefined) throw new ConfigError(`${where}.path_on_host`, undefined, "is required");
    const limiter = optionalLimiter(map, "rate_limiter", `${where}.rate_limiter`);
    return {
      drive_id: id,
      path_on_host: path,
      is_read_only: optionalBoolean(fields, `${where}.is_read_only`) ?? false,
      cache_type: choice(fields, `${where}.cache_type`, ["Unsafe", "Writeback"]) ?? "Unsafe",
      io_engine: choice(fields, `${where}.io_engine`, ["Sync", "Async"]) ?? "Sync",
      ...(limiter === undefined ? {} : { rate_limiter: limiter }),
    };
  });
  const ids = found.map((drive) => drive.drive_id);
  const twice = ids.find((id, index) => ids.indexOf(id) !== index);
  if (twice !== undefined) throw new ConfigError("drive.drive_id", twice, "is there twice");
  return found.length === 0 ? undefined : found;
}

function balloon(map: ConfigMap | undefined): VmOptions["balloon"] {
  if (map === undefined) return undefined;
  const fields = named(map, "balloon");
  const amount = optionalInteger(fields, "balloon.amount_mib", { minimum: 0, maximum: 1 << 22, unit: "MiB" });
  const interval = { minimum: 0, maximum: 65_535, unit: "seconds" };
  return {
    amount_mib: amount ?? 0,
    // A guest short of memory gets it back, unless the job says otherwise.
    deflate_on_oom: optionalBoolean(fields, "balloon.deflate_on_oom") ?? true,
    ...present({
      stats_polling_interval_s: optionalInteger(fields, "balloon.stats_polling_interval_s", interval),
      free_page_hinting: optionalBoolean(fields, "balloon.free_page_hinting"),
      free_page_reporting: optionalBoolean(fields, "balloon.free_page_reporting"),
    }),
  };
}

function entropy(map: ConfigMap | undefined): VmOptions["entropy"] {
  if (map === undefined) return undefined;
  return present({ rate_limiter: optionalLimiter(map, "rate_limiter", "entropy.rate_limiter") });
}

const linkLocal = /^169\.254\.([1-9]|[1-9]\d|1\d\d|2[0-4]\d|25[0-4])\.(\d|[1-9]\d|1\d\d|2[0-4]\d|25[0-5])$/;

function mmds(map: ConfigMap | undefined): VmOptions["mmds"] {
  if (map === undefined) return undefined;
  const fields = named(map, "mmds");
  const address = optionalString(fields, "mmds.ipv4_address");
  if (address !== undefined && !linkLocal.test(address)) {
    throw new ConfigError("mmds.ipv4_address", address, "must be a link-local address, 169.254.1.0 to 169.254.254.255");
  }
  return {
    config: {
      version: choice(fields, "mmds.version", ["V1", "V2"]) ?? "V2",
      ...present({ ipv4_address: address, imds_compat: optionalBoolean(fields, "mmds.imds_compat") }),
    },
    contents: contents(map["contents"]),
  };
}

/** A map, or JSON text of one (what `jsonencode` gives). */
function contents(value: unknown): object {
  let parsed: unknown = value ?? {};
  try {
    if (typeof value === "string") parsed = JSON.parse(value);
  } catch {
    throw new ConfigError("mmds.contents", value, "is no JSON");
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) {
    throw new ConfigError("mmds.contents", value, "must be a map, or a JSON object as text");
  }
  return asConfigMap(parsed);
}

function serial(map: ConfigMap | undefined): VmOptions["serial"] {
  if (map === undefined) return undefined;
  return present({ rate_limiter: optionalBucket(map, "rate_limiter", "serial.rate_limiter") });
}

const levels = ["Error", "Warning", "Info", "Debug", "Trace", "Off"] as const;

function logger(map: ConfigMap | undefined): VmOptions["logger"] {
  if (map === undefined) return undefined;
  const fields = named(map, "logger");
  return present({
    level: choice(fields, "logger.level", levels),
    show_level: optionalBoolean(fields, "logger.show_level"),
    show_log_origin: optionalBoolean(fields, "logger.show_log_origin"),
    module: optionalString(fields, "logger.module"),
  });
}

function metrics(map: ConfigMap | undefined): boolean | undefined {
  if (map === undefined) return undefined;
  return optionalBoolean(named(map, "metrics"), "metrics.enabled") ?? true;
}
