// The `config` block of a task.
import { ConfigError } from "../../errors.ts";
import { minDiskMib } from "../plugin/disk.ts";
import { key, type Parsed, readTable } from "../table.ts";
import { boolean, environment, integer, refine, string, stringMap, words } from "../values.ts";
import { type ContainerSettings, parseContainer } from "./container.ts";
import { type ImageOptions, imageTable } from "./image.ts";
import { type NetworkSettings, parseNetworkSettings } from "./network.ts";
import { parseVm, type VmSettings } from "./vm.ts";

export const maxVcpus = 32;
/** Below it Debian's cloud kernel with our initramfs does not come up. */
export const minMemoryMib = 128;
const maxMemoryMib = 4 * 1024 * 1024;

const cpuCount = integer({ min: 1, max: maxVcpus, unit: "CPUs" });

const unitsMib: Readonly<Record<string, number>> = { m: 1, g: 1024, t: 1024 * 1024 };

/** docker's units are powers of 1024, and it has other options too, which belong to its own storage drivers. */
const storageSize = refine(
  stringMap,
  (options, path) => {
    const other = [...options.keys()].find((name) => name !== "size");
    if (other !== undefined) throw new ConfigError(`${path}.${other}`, undefined, "is not one of size");
    const text = options.get("size");
    if (text === undefined) throw new ConfigError(path, undefined, 'needs size, e.g. { size = "2G" }');
    const [, number = "", unit = ""] = /^(\d{1,9})([mgt])i?b?$/i.exec(text) ?? [];
    const sizeMib = Number(number) * (unitsMib[unit.toLowerCase()] ?? Number.NaN);
    if (sizeMib >= minDiskMib) return sizeMib;
    throw new ConfigError(`${path}.size`, text, `must be a size of at least ${minDiskMib} MiB, such as "512M" or "2G"`);
  },
  "map with the key size",
);

export const sizeTable = {
  vpuCount: key("vpu_count", {
    reader: cpuCount,
    absent: "the number of `cores` in `resources`, else `cpu` rounded up to whole cores",
    doc: "The VM's CPUs.",
  }),
  vcpuCount: key("vcpu_count", {
    reader: cpuCount,
    absent: "`vpu_count`",
    doc: "Another spelling of `vpu_count`. If a job gives both, they must be equal.",
  }),
  memSizeMib: key("mem_size", {
    reader: integer({ min: minMemoryMib, max: maxMemoryMib, unit: "MiB" }),
    absent: "`memory_max` in `resources`, else `memory`",
    doc: "The VM's memory. The guest's kernel takes its share of it.",
  }),
  diskSizeMib: key("storage_opt", {
    reader: storageSize,
    absent: "the plugin's `disk.size`",
    doc: "The size of the task's writable disk, as with docker: `{ size = \"2G\" }`. The plugin's `disk.max_size` is the upper limit.",
  }),
  hardLimit: key("cpu_hard_limit", {
    reader: boolean,
    default: false,
    doc: "Whether `resources.cpu` is an upper limit on the host too, and not only a weight, as with docker's driver.",
  }),
};

const workDir = refine(string, (path, name) => {
  if (!path.startsWith("/")) throw new ConfigError(name, path, "must be an absolute path");
  return path;
});

export const processTable = {
  command: key("command", {
    reader: string,
    absent: "the image's CMD",
    doc: "The program, as with docker's driver: it is appended to the entrypoint, and replaces the image's CMD.",
  }),
  args: key("args", {
    reader: words,
    absent: "none",
    doc: "The program's arguments. Without `command` they alone replace the image's CMD.",
  }),
  entrypoint: key("entrypoint", {
    reader: words,
    absent: "the image's",
    doc: "Replaces the image's ENTRYPOINT and CMD.",
  }),
  env: key("env", {
    reader: environment,
    default: [],
    doc: "Environment variables. They win over the task's `env` block, which wins over the image's.",
  }),
  workDir: key("work_dir", {
    reader: workDir,
    absent: "the image's",
    doc: "The working directory, an absolute path in the VM. The guest makes it if it is missing.",
  }),
};

export interface TaskSettings extends Parsed<typeof processTable> {
  readonly image: ImageOptions;
  readonly vcpuCount: number | undefined;
  readonly memSizeMib: number | undefined;
  /** The size of the task's writable disk. */
  readonly diskSizeMib: number | undefined;
  readonly cpu: { readonly hardLimit: boolean };
  readonly container: ContainerSettings;
  readonly vm: VmSettings;
  readonly network: NetworkSettings;
}

/** Fails with ConfigError. */
export function parseTaskConfig(config: unknown): TaskSettings {
  const image = readTable(imageTable, config);
  const { vpuCount, vcpuCount, memSizeMib, diskSizeMib, hardLimit } = readTable(sizeTable, config);
  if (vpuCount !== undefined && vcpuCount !== undefined && vpuCount !== vcpuCount) {
    throw new ConfigError("vcpu_count", vcpuCount, `differs from vpu_count = ${vpuCount}; give one of them`);
  }
  return {
    image,
    vcpuCount: vpuCount ?? vcpuCount,
    memSizeMib,
    diskSizeMib,
    cpu: { hardLimit },
    ...readTable(processTable, config),
    container: parseContainer(config),
    vm: parseVm(config),
    network: parseNetworkSettings(config),
  };
}
