// The cgroup that a VM's processes run in. Its memory limit holds the guest's memory and what the VMM needs beyond: a guest that
// touches all its memory lives. Its parent is ours, not Nomad's, whose clean-up removes what lies below its own.
import { type CgroupHierarchies, createGroup, type GroupLimits, groupDirectories } from "../system/cgroups.ts";
import { CgroupError } from "./errors.ts";
import { shareCores } from "./shared-cores.ts";

export interface CgroupSettings {
  readonly hierarchies: CgroupHierarchies;
  /** Relative to the hierarchies' roots. */
  readonly parent: string;
}

/** A VM's share of the host's CPUs. */
export interface CpuLimits {
  /** Relative weight, 1024 for an ordinary process; undefined leaves the kernel's default. */
  readonly shares?: number | undefined;
  /** Hard limit in percent of one core. */
  readonly percent?: number | undefined;
  /** Cores that it is pinned to, as "0,2-3". */
  readonly cpuset?: string | undefined;
  /** Else the directory of a cgroup whose cores the VM shares, as they change (shared-cores.ts). */
  readonly sharedCores?: string | undefined;
}

/** A VMM has a thread a vCPU and two more; io_uring and vhost may add theirs. */
const maxThreads = 512;

export class MachineCgroup {
  readonly #options: { hierarchies: CgroupHierarchies; parent: string; name: string; limits: GroupLimits };
  readonly #sharedCores: string | undefined;
  readonly directories: readonly string[];

  constructor(options: {
    settings: CgroupSettings;
    id: string;
    cpu: CpuLimits;
    /** Undefined for no limit. */
    memoryMib: number | undefined;
    /** The guest's memory if huge pages hold it; else 0. */
    hugePagesMib: number;
  }) {
    const { settings, id, cpu, memoryMib, hugePagesMib } = options;
    this.#options = {
      ...settings,
      name: id,
      limits: {
        memoryBytes: memoryMib === undefined ? undefined : memoryMib * 1024 * 1024,
        cpuShares: cpu.shares,
        cpuPercent: cpu.percent,
        cpuset: cpu.cpuset ?? (cpu.sharedCores === undefined ? undefined : ""),
        pids: maxThreads,
        hugePageBytes: hugePagesMib * 1024 * 1024,
      },
    };
    this.#sharedCores = cpu.cpuset === undefined ? cpu.sharedCores : undefined;
    this.directories = groupDirectories(this.#options);
  }

  /** Fails with CgroupError. */
  async create(): Promise<void> {
    try {
      await createGroup(this.#options);
      if (this.#sharedCores !== undefined) await shareCores(this.directories, this.#sharedCores);
    } catch (error) {
      throw new CgroupError({ cause: error as Error });
    }
  }
}
