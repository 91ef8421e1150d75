// A job's own VM in the words of Firecracker's API: `boot_source`, `machine_config`, `drive`, `balloon` and so on.
// start/vm-rules.ts checks what follows from the host or from other settings.
import type { CpuTemplate } from "../../../gen/firecracker/api.ts";
import type { ExtraDrive, VmOptions } from "../../../vmm/vm-options.ts";
import { ConfigError } from "../../errors.ts";
import { block, blocks, key, present, type Row, readTable, section } from "../table.ts";
import { boolean, integer, oneOf, type Reader, refine, string, toJson } from "../values.ts";
import { bucketBlock, limiterBlock } from "./vm-limiters.ts";

const driverArguments = ["console", "init", "rdinit", "root", "panic", "reboot", "nomodule", "initrd", "litegix_probe"];
const maxBootArgs = 1024;

const bootArgs = refine(string, (text, path) => {
  if (!/^[\x20-\x7e]*$/.test(text) || text.length > maxBootArgs) {
    throw new ConfigError(path, text, `must be printable ASCII of at most ${maxBootArgs} characters`);
  }
  const list = text.split(" ").filter((word) => word !== "");
  for (const word of list) {
    const [name = ""] = word.split("=");
    if (!driverArguments.includes(name) && name !== "--") continue;
    throw new ConfigError(path, text, `must not hold ${name}: the driver sets it`);
  }
  return list;
});

const hostPath = refine(string, (path, name) => {
  if (path.startsWith("/")) return path;
  throw new ConfigError(name, path, "must be an absolute path on the host");
});

const driveId = refine(string, (id, path) => {
  if (isDriveId(id)) return id;
  throw new ConfigError(path, id, 'must be of letters, digits and "_", and not "drive" with a number');
});

/** "drive0" and so on are the VM's own. */
const isDriveId = (id: unknown): id is string => typeof id === "string" && /^(?!drive\d+$)\w{1,64}$/.test(id);

const linkLocalPattern = /^169\.254\.([1-9]|[1-9]\d|1\d\d|2[0-4]\d|25[0-4])\.(\d|[1-9]\d|1\d\d|2[0-4]\d|25[0-5])$/;

const linkLocal = refine(string, (address, path) => {
  if (linkLocalPattern.test(address)) return address;
  throw new ConfigError(path, address, "must be a link-local address, 169.254.1.0 to 169.254.254.255");
});

/** `jsonencode` in a job gives JSON text. */
const contents: Reader<object> = {
  type: "map, or a JSON object as text",
  read: (value, path) => {
    let parsed = toJson(value);
    try {
      if (typeof value === "string") parsed = JSON.parse(value);
    } catch {
      throw new ConfigError(path, value, "is not valid JSON");
    }
    if (typeof parsed === "object" && parsed !== null && !Array.isArray(parsed)) return parsed;
    throw new ConfigError(path, value, "must be a map, or a JSON object as text");
  },
};

const bootSourceBlock = section("boot_source", {
  doc: "The guest's kernel and its command line.",
  rows: {
    bootArgs: key("boot_args", {
      reader: bootArgs,
      default: "",
      doc: `Arguments for the guest's kernel, after the driver's own. The driver sets ${driverArguments.slice(0, -1).join(", ")} itself.`,
    }),
    kernelImagePath: key("kernel_image_path", {
      reader: hostPath,
      absent: "the plugin's `vmlinux_path`",
      doc: "The guest's kernel, a file of the host that the plugin's `allowed_host_paths` allows.",
    }),
    initrdPath: key("initrd_path", {
      reader: hostPath,
      absent: "none",
      doc: "An initramfs that is unpacked over the driver's own, a file that `allowed_host_paths` allows.",
    }),
  },
});

/** A block for each option, by the option's name. */
const optionTable = {
  machineConfig: block("machine_config", {
    doc: "The kind of the machine.",
    rows: {
      smt: key("smt", {
        reader: boolean,
        absent: "`false`",
        doc: "Whether two CPUs share a core. It needs one CPU or an even number of them.",
      }),
      cpu_template: key("cpu_template", {
        reader: oneOf<CpuTemplate>("None", "C3", "T2", "T2S", "T2CL", "T2A", "V1N1"),
        absent: '`"None"`',
        doc: "Makes CPUs of different hosts look alike to the guest.",
      }),
      huge_pages: key("huge_pages", {
        reader: oneOf("None", "2M"),
        absent: '`"None"`',
        doc: '"2M" backs the guest\'s memory with huge pages. It needs an even number of MiB, and as many free huge pages on the host.',
      }),
      track_dirty_pages: key("track_dirty_pages", {
        reader: boolean,
        absent: "`false`",
        doc: "Whether the kernel tracks the pages that the guest writes.",
      }),
    },
    convert: present,
  }),
  drives: blocks("drive", {
    doc: "A disk of the host for the VM: /dev/vdc, /dev/vdd and so on in the order of the job. QEMU takes its path and `is_read_only` only.",
    path: (map) => {
      const id = map.get("drive_id");
      return isDriveId(id) ? `drive ${id}` : "drive";
    },
    rows: {
      drive_id: key("drive_id", {
        reader: driveId,
        hcl: "string",
        required: "data",
        doc: 'The drive\'s name: letters, digits and "_", and not "drive" with a number.',
      }),
      path_on_host: key("path_on_host", {
        reader: hostPath,
        hcl: "string",
        required: "/dev/vg0/data",
        doc: "A block device, or a file, that the plugin's `allowed_host_paths` allows.",
      }),
      is_read_only: key("is_read_only", {
        reader: boolean,
        hcl: "bool",
        default: false,
        doc: "Whether the VM can only read it. A drive that a VM can write belongs to that VM alone while it lives.",
      }),
      cache_type: key("cache_type", {
        reader: oneOf("Unsafe", "Writeback"),
        hcl: "string",
        default: "Unsafe",
        doc: 'With "Writeback" a flush in the guest reaches the host\'s disk.',
      }),
      io_engine: key("io_engine", {
        reader: oneOf("Sync", "Async"),
        hcl: "string",
        default: "Sync",
        doc: '"Async" uses io_uring.',
      }),
      rate_limiter: limiterBlock("rate_limiter", "Limits this drive."),
    },
    convert: (drive): ExtraDrive => present(drive),
  }),
  rateLimiter: limiterBlock("rate_limiter", "Limits each of the VM's own two disks."),
  rxRateLimiter: limiterBlock("rx_rate_limiter", "Limits what each network interface receives."),
  txRateLimiter: limiterBlock("tx_rate_limiter", "Limits what each network interface sends."),
  balloon: block("balloon", {
    doc: "A device by which the host takes memory back from the guest.",
    rows: {
      amount_mib: key("amount_mib", {
        reader: integer({ min: 0, max: 1 << 22, unit: "MiB" }),
        default: 0,
        doc: "The memory that the balloon takes. It must be less than the VM has.",
      }),
      deflate_on_oom: key("deflate_on_oom", {
        reader: boolean,
        default: true,
        doc: "Whether a guest that runs short of memory gets it back.",
      }),
      stats_polling_interval_s: key("stats_polling_interval_s", {
        reader: integer({ min: 0, max: 65_535, unit: "seconds" }),
        absent: "`0`",
        doc: "The interval of the balloon's statistics; 0 turns them off.",
      }),
      free_page_hinting: key("free_page_hinting", {
        reader: boolean,
        absent: "`false`",
        doc: "Whether the guest hints at free pages on request.",
      }),
      free_page_reporting: key("free_page_reporting", {
        reader: boolean,
        absent: "`false`",
        doc: "Whether the guest reports free pages by itself.",
      }),
    },
    convert: present,
  }),
  entropy: block("entropy", {
    doc: "A device with random numbers from the host. Without it the host seeds the guest's generator once, when the guest comes up.",
    rows: { rate_limiter: limiterBlock("rate_limiter", "Limits the device.") },
    convert: present,
  }),
  mmds: block("mmds", {
    doc: "Firecracker's metadata service. It needs a network interface.",
    rows: {
      version: key("version", { reader: oneOf("V1", "V2"), default: "V2", doc: "The version of its protocol." }),
      ipv4_address: key("ipv4_address", {
        reader: linkLocal,
        absent: '`"169.254.169.254"`',
        doc: "Its link-local address.",
      }),
      imds_compat: key("imds_compat", {
        reader: boolean,
        absent: "`false`",
        doc: "Whether it answers as EC2's service does, as plain text whatever a request asks for.",
      }),
      contents: key("contents", { reader: contents, default: {}, doc: "The metadata." }),
    },
    convert: ({ contents, ...config }) => ({ config: present(config), contents }),
  }),
  serial: block("serial", {
    doc: "The guest's console.",
    rows: { rate_limiter: bucketBlock("rate_limiter", "Limits the console's bytes. Firecracker drops the rest.") },
    convert: present,
  }),
  logger: block("logger", {
    doc: "Firecracker's log, which goes into the VM's `vmm.log` with the console.",
    rows: {
      level: key("level", {
        reader: oneOf("Error", "Warning", "Info", "Debug", "Trace", "Off"),
        absent: '`"Info"`',
        doc: "The least important messages that are logged.",
      }),
      show_level: key("show_level", { reader: boolean, absent: "`false`", doc: "Whether a line has its level." }),
      show_log_origin: key("show_log_origin", {
        reader: boolean,
        absent: "`false`",
        doc: "Whether a line has its place in Firecracker's source.",
      }),
      module: key("module", { reader: string, absent: "all", doc: "The one module of Firecracker that logs." }),
    },
    convert: present,
  }),
  metrics: block("metrics", {
    doc: "Firecracker's metrics, which go into `metrics.jsonl` in the VM's directory (in its jail, if it has one).",
    rows: { enabled: key("enabled", { reader: boolean, default: true, doc: "Whether Firecracker writes them." }) },
    convert: ({ enabled }) => enabled,
  }),
} satisfies { [K in keyof VmOptions]-?: Row<VmOptions[K] | undefined> };

export const vmTable = { bootSource: bootSourceBlock, ...optionTable };

/** The block's name in a job. */
export const optionKey = (option: keyof VmOptions): string => optionTable[option].key;

export interface VmSettings {
  readonly bootSource: ReturnType<typeof bootSourceBlock.read>;
  readonly options: VmOptions;
}

/** Fails with ConfigError. */
export function parseVm(config: unknown): VmSettings {
  const { bootSource, drives, ...options } = readTable(vmTable, config);
  const ids = drives.map((drive) => drive.drive_id);
  const twice = ids.find((id, index) => ids.indexOf(id) !== index);
  if (twice !== undefined) throw new ConfigError(`${optionKey("drives")}.drive_id`, twice, "is given twice");
  return { bootSource, options: present({ ...options, drives: drives.length === 0 ? undefined : drives }) };
}
