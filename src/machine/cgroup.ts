// The cgroup that a VM's processes run in, and its supervisor's. The first one's memory limit holds the guest's memory and what the
// VMM needs beyond: a guest that touches all its memory lives. Their parent is ours, not Nomad's, whose clean-up removes what lies below its own.
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
/** Three times the peak that a hostile guest can bring about (hostile-guest.test.ts). */
const supervisorMemoryMib = 64;
/** The supervisor itself, and each child until its program runs. */
const maxSupervisorProcesses = 16;

export class MachineCgroup {
  readonly #options: { hierarchies: CgroupHierarchies; parent: string; name: string; limits: GroupLimits };
  readonly #sharedCores: string | undefined;
  readonly directories: readonly string[];

  private constructor(settings: CgroupSettings, name: string, limits: GroupLimits, sharedCores?: string) {
    this.#options = { ...settings, name, limits };
    this.#sharedCores = sharedCores;
    this.directories = groupDirectories(this.#options);
  }

  static ofVm(options: {
    settings: CgroupSettings;
    id: string;
    cpu: CpuLimits;
    memoryMib: number;
    /** The guest's memory if huge pages hold it; else 0. */
    hugePagesMib: number;
  }): MachineCgroup {
    const { settings, id, cpu, memoryMib, hugePagesMib } = options;
    const limits = {
      memoryBytes: memoryMib * 1024 * 1024,
      cpuShares: cpu.shares,
      cpuPercent: cpu.percent,
      cpuset: cpu.cpuset ?? (cpu.sharedCores === undefined ? undefined : ""),
      pids: maxThreads,
      hugePageBytes: hugePagesMib * 1024 * 1024,
    };
    return new MachineCgroup(settings, id, limits, cpu.cpuset === undefined ? cpu.sharedCores : undefined);
  }

  /** Beside the VM's: a VM at its limits must not stall its supervisor, which writes the record of its end. */
  static ofSupervisor(options: { settings: CgroupSettings; id: string }): MachineCgroup {
    const { settings, id } = options;
    return new MachineCgroup(settings, `${id}-supervisor`, {
      memoryBytes: supervisorMemoryMib * 1024 * 1024,
      pids: maxSupervisorProcesses,
    });
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
