// The `config` block of a task.
import { ConfigError } from "../../errors.ts";
import { key, type Parsed, readTable } from "../table.ts";
import { boolean, environment, integer, refine, string, words } from "../values.ts";
import { type ContainerSettings, parseContainer } from "./container.ts";
import { type ImageOptions, imageTable } from "./image.ts";
import { type NetworkSettings, parseNetworkSettings } from "./network.ts";
import { parseVm, type VmSettings } from "./vm.ts";

export const maxVcpus = 32;
/** Below it Debian's cloud kernel with our initramfs does not come up. */
export const minMemoryMib = 128;
const maxMemoryMib = 4 * 1024 * 1024;

const cpuCount = integer({ min: 1, max: maxVcpus, unit: "CPUs" });

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
  readonly cpu: { readonly hardLimit: boolean };
  readonly container: ContainerSettings;
  readonly vm: VmSettings;
  readonly network: NetworkSettings;
}

/** Fails with ConfigError. */
export function parseTaskConfig(config: unknown): TaskSettings {
  const image = readTable(imageTable, config);
  const { vpuCount, vcpuCount, memSizeMib, hardLimit } = readTable(sizeTable, config);
  if (vpuCount !== undefined && vcpuCount !== undefined && vpuCount !== vcpuCount) {
    throw new ConfigError("vcpu_count", vcpuCount, `differs from vpu_count = ${vpuCount}; give one of them`);
  }
  return {
    image,
    vcpuCount: vpuCount ?? vcpuCount,
    memSizeMib,
    cpu: { hardLimit },
    ...readTable(processTable, config),
    container: parseContainer(config),
    vm: parseVm(config),
    network: parseNetworkSettings(config),
  };
}
