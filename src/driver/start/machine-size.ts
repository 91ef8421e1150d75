// The size of a VM: from the task's config or the job's `resources`, and within what the job reserved there. Nomad places jobs and
// keeps quotas by its reservations, so a larger VM would take memory that Nomad has promised to others.
//
// The number of vCPUs is not an amount of CPU time. The VM's cgroup has the weight of `resources.cpu`, and a VM's threads share it as
// a container's do. So a VM takes no more time from others than a container with the same resources, whatever its number of vCPUs.
// The driver bounds the number all the same: by the reserved cores, or else by the host's, since more would only wait for each other.
import { cpus } from "node:os";
import { basename, dirname } from "node:path";
import type { CpuLimits } from "../../machine/cgroup.ts";
import type { PluginSettings } from "../config/plugin/plugin-config.ts";
import { maxVcpus, minMemoryMib, type TaskSettings } from "../config/task/task-config.ts";
import { ConfigError } from "../errors.ts";
import type { TaskConfig } from "../nomad-driver.ts";

type TaskResources = TaskConfig["resources"];

export interface MachineSize {
  readonly vcpuCount: number;
  readonly memSizeMib: number;
  readonly cpu: CpuLimits;
}

/** A VM may have this many on any host, so that one job file serves hosts of all sizes. */
const vcpusEverywhere = 2;

/** Fails with ConfigError if the job has less memory than a guest needs to boot, or asks for more than it reserved. */
export function machineSize(options: {
  settings: TaskSettings;
  resources: TaskResources;
  /** MHz of one host core; 0 if unknown. */
  coreMhz: number;
  hostCores?: number;
  /** The plugin's `allow_oversize`. */
  allowOversize?: boolean;
}): MachineSize {
  const { settings, resources, coreMhz, hostCores = cpus().length, allowOversize = false } = options;
  const memSizeMib = settings.memSizeMib ?? reservedMemory(resources).mib;
  if (memSizeMib < minMemoryMib) {
    const rule = `must be at least ${minMemoryMib} MiB for a guest to boot: set resources { memory = ${minMemoryMib} }, or more`;
    throw new ConfigError("resources.memory", memSizeMib, rule);
  }
  const vcpuCount = settings.vcpuCount ?? vcpusFor(resources, coreMhz, hostCores);
  if (!allowOversize) {
    checkMemory(memSizeMib, resources);
    checkVcpus(vcpuCount, resources, hostCores);
  }
  return { vcpuCount, memSizeMib, cpu: cpuLimits({ resources, coreMhz, hard: settings.cpu.hardLimit }) };
}

/** Nomad gives `memory_max` only if the cluster allows oversubscription. */
function reservedMemory({ memoryMib, memoryMaxMib }: TaskResources): { key: string; mib: number } {
  return memoryMaxMib > memoryMib ? { key: "memory_max", mib: memoryMaxMib } : { key: "memory", mib: memoryMib };
}

function checkMemory(memSizeMib: number, resources: TaskResources): void {
  const { key, mib } = reservedMemory(resources);
  if (memSizeMib <= mib) return;
  const smaller = mib < minMemoryMib ? "" : ` or config { mem_size = ${mib} }`;
  const rule = `is more than the task's ${key} = ${mib}: set resources { ${key} = ${memSizeMib} }${smaller}`;
  throw new ConfigError("mem_size", memSizeMib, rule);
}

function checkVcpus(vcpuCount: number, resources: TaskResources, hostCores: number): void {
  const cores = countCores(resources.cpusetCpus);
  if (cores > 0 && vcpuCount > cores) {
    const rule = `is more than the task's cores = ${cores}: set resources { cores = ${vcpuCount} } or config { vpu_count = ${cores} }`;
    throw new ConfigError("vpu_count", vcpuCount, rule);
  }
  const most = Math.max(hostCores, vcpusEverywhere);
  if (vcpuCount <= most) return;
  const rule = `is more than the ${most} that a VM may have on this node, which has ${hostCores} cores: set config { vpu_count = ${most} }, or constrain the job to nodes with attr.cpu.numcores >= ${vcpuCount}`;
  throw new ConfigError("vpu_count", vcpuCount, rule);
}

/** The weight is the number of MHz, as with docker; reserved cores pin the VM. */
function cpuLimits(options: { resources: TaskResources; coreMhz: number; hard: boolean }): CpuLimits {
  const { cpuMhz, cpusetCpus } = options.resources;
  const mhz = coreMhzOf(options.coreMhz);
  return {
    shares: cpuMhz > 0 ? cpuMhz : undefined,
    percent: options.hard && mhz > 0 ? (cpuMhz / mhz) * 100 : undefined,
    cpuset: cpusetCpus === "" ? undefined : cpusetCpus,
    sharedCores: cpusetCpus === "" ? sharedGroup(options.resources.cpusetCgroup) : undefined,
  };
}

/**
 * The cgroup of tasks without cores of their own. With v1 Nomad names it; with v2 it names the task's own group below it, except
 * before Nomad 1.7, where that group's cores alone change.
 */
function sharedGroup(path: string): string | undefined {
  if (path === "") return undefined;
  return basename(dirname(path)) === "share.slice" ? dirname(path) : path;
}

const coreMhzOf = (known: number): number => (known > 0 ? known : (cpus()[0]?.speed ?? 0));

function vcpusFor(resources: TaskResources, coreMhz: number, hostCores: number): number {
  const cores = countCores(resources.cpusetCpus);
  if (cores > 0) return Math.min(cores, maxVcpus);
  const mhz = coreMhzOf(coreMhz);
  if (mhz <= 0) return 1;
  return Math.min(Math.max(Math.ceil(resources.cpuMhz / mhz), 1), Math.max(hostCores, vcpusEverywhere), maxVcpus);
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

/** The size of the task's writable disk. Fails with ConfigError if the plugin allows no such size. */
export function diskSizeMib(settings: TaskSettings, plugin: Pick<PluginSettings, "disk" | "allowOversize">): number {
  const { sizeMib, maxSizeMib } = plugin.disk;
  const asked = settings.diskSizeMib ?? sizeMib;
  if (asked <= maxSizeMib || plugin.allowOversize) return asked;
  const rule = `is more than the ${maxSizeMib} MiB that this node's plugin allows (disk.max_size): set config { storage_opt = { size = "${maxSizeMib}M" } } or less`;
  throw new ConfigError("storage_opt.size", `${asked}M`, rule);
}
