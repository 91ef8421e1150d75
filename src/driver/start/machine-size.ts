// The size of a VM if the task's config does not give it: from the job's `resources`.
import { cpus } from "node:os";
import type { CpuLimits } from "../../machine/cgroup.ts";
import { maxVcpus, minMemoryMib, type TaskSettings } from "../config/task/task-config.ts";
import { ConfigError } from "../errors.ts";
import type { TaskConfig } from "../nomad-driver.ts";

type TaskResources = TaskConfig["resources"];

export interface MachineSize {
  readonly vcpuCount: number;
  readonly memSizeMib: number;
  readonly cpu: CpuLimits;
}

/** Fails with ConfigError if the job has less memory than a guest needs to boot. */
export function machineSize(options: {
  settings: TaskSettings;
  resources: TaskResources;
  /** MHz of one host core; 0 if unknown. */
  coreMhz: number;
}): MachineSize {
  const { settings, resources, coreMhz } = options;
  const memSizeMib = settings.memSizeMib ?? Math.max(resources.memoryMib, resources.memoryMaxMib);
  if (memSizeMib < minMemoryMib) {
    const rule = `must be at least ${minMemoryMib} MiB for a guest to boot; raise it, or set mem_size`;
    throw new ConfigError("resources.memory", memSizeMib, rule);
  }
  return {
    vcpuCount: settings.vcpuCount ?? vcpusFor(resources, coreMhz),
    memSizeMib,
    cpu: cpuLimits({ resources, coreMhz, hard: settings.cpu.hardLimit }),
  };
}

/** The weight is the number of MHz, as with docker; reserved cores pin the VM. */
function cpuLimits(options: { resources: TaskResources; coreMhz: number; hard: boolean }): CpuLimits {
  const { cpuMhz, cpusetCpus } = options.resources;
  const mhz = coreMhzOf(options.coreMhz);
  return {
    shares: cpuMhz > 0 ? cpuMhz : undefined,
    percent: options.hard && mhz > 0 ? (cpuMhz / mhz) * 100 : undefined,
    cpuset: cpusetCpus === "" ? undefined : cpusetCpus,
  };
}

const coreMhzOf = (known: number): number => (known > 0 ? known : (cpus()[0]?.speed ?? 0));

function vcpusFor(resources: TaskResources, coreMhz: number): number {
  const cores = countCores(resources.cpusetCpus);
  if (cores > 0) return Math.min(cores, maxVcpus);
  const mhz = coreMhzOf(coreMhz);
  if (mhz <= 0) return 1;
  return Math.min(Math.max(Math.ceil(resources.cpuMhz / mhz), 1), maxVcpus);
}

/** "0,2-3" has three. */
function countCores(list: string): number {
  return list
    .split(",")
    .filter((part) => part !== "")
    .reduce((count, part) => {
      const [first, last] = part.split("-").map(Number);
      return count + (last === undefined ? 1 : last - (first ?? 0) + 1);
    }, 0);
}
