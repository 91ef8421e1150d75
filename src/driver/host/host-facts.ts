// More facts about the host for the scheduler and the operator.
import { readFile, statfs } from "node:fs/promises";
import { exists } from "../../system/files.ts";

export interface HostFacts {
  /** Undefined if no cgroup hierarchy is mounted. */
  readonly cgroupVersion: 1 | 2 | undefined;
  /** Each has 2 MiB. */
  readonly freeHugePages: number;
  readonly tun: boolean;
  /** `rootfs_base_path` lies on a tmpfs or ramfs. */
  readonly basePathInMemory: boolean;
}

/** statfs(2): TMPFS_MAGIC and RAMFS_MAGIC. */
const memoryFileSystems: readonly number[] = [0x0102_1994, 0x8584_58f6];

export async function inspectFacts(options: {
  cgroupVersion: 1 | 2 | undefined;
  basePath: string;
}): Promise<HostFacts> {
  return {
    cgroupVersion: options.cgroupVersion,
    freeHugePages: await freeHugePages(),
    tun: await exists("/dev/net/tun"),
    basePathInMemory: memoryFileSystems.includes((await statfs(options.basePath)).type),
  };
}

/** Pages of 2 MiB each. */
export async function freeHugePages(): Promise<number> {
  const free = await readFile("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "utf8").catch(() => "0");
  return Number(free.trim());
}

export function factWarnings(facts: HostFacts): string[] {
  const warnings: string[] = [];
  if (facts.cgroupVersion === undefined) {
    warnings.push("no cgroups are mounted: nothing limits the memory and CPU that a VM takes of the host");
  }
  if (!facts.tun) warnings.push("there is no /dev/net/tun (modprobe tun): VMs can't have a network");
  if (facts.basePathInMemory) {
    warnings.push(
      "rootfs_base_path lies in memory (tmpfs): the data that a task writes to its disk count as its VM's memory, " +
        "and a VM that writes much is killed for it; choose a path on a disk",
    );
  }
  return warnings;
}
