// More facts about the host for the scheduler and the operator.
import { readFile } from "node:fs/promises";
import { freeBytes, isInMemory, keepsReservedSpace } from "../../system/disk-space.ts";
import { exists } from "../../system/files.ts";
import { untrustedPart } from "../../system/trusted-path.ts";

export interface HostFacts {
  /** Undefined if no cgroup hierarchy is mounted. */
  readonly cgroupVersion: 1 | 2 | undefined;
  /** Each has 2 MiB. */
  readonly freeHugePages: number;
  readonly tun: boolean;
  /** `rootfs_base_path` lies on a tmpfs or ramfs. */
  readonly basePathInMemory: boolean;
  /** Its file system sets space aside for a VM's disk. */
  readonly reservesSpace: boolean;
  /** Less space is free there than the plugin's `disk.min_free`. */
  readonly shortOfSpace: boolean;
}

export async function inspectFacts(options: {
  cgroupVersion: 1 | 2 | undefined;
  basePath: string;
  minFreeMib: number;
}): Promise<HostFacts> {
  const { basePath } = options;
  const basePathInMemory = await isInMemory(basePath);
  return {
    cgroupVersion: options.cgroupVersion,
    freeHugePages: await freeHugePages(),
    tun: await exists("/dev/net/tun"),
    basePathInMemory,
    reservesSpace: !basePathInMemory && (await keepsReservedSpace(basePath)),
    shortOfSpace: (await freeBytes(basePath)) < options.minFreeMib * 1024 * 1024,
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
  } else if (!facts.reservesSpace) {
    warnings.push(
      "the file system of rootfs_base_path can't set space aside for VMs' disks: when it is full, their writes fail; use ext4 or XFS",
    );
  }
  if (facts.shortOfSpace) {
    warnings.push(
      "less space than disk.min_free is free below rootfs_base_path: no task starts and no image is pulled",
    );
  }
  return warnings;
}

/** A user who may write an allowed directory decides which files of it jobs get. */
export async function hostPathWarnings(allowed: readonly string[]): Promise<string[]> {
  const parts = await Promise.all(allowed.map((path) => untrustedPart({ path, isDirectory: true })));
  return allowed.flatMap((path, index) => {
    const part = parts[index];
    if (part === undefined) return [];
    const { reason, cure } = part;
    return `allowed_host_paths has ${path}, and ${part.path} ${reason}, who can put any file of theirs there for jobs: ${cure}`;
  });
}
