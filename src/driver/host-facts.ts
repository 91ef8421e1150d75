// What else of the host the scheduler and the operator may want to know.
import { readFile } from "node:fs/promises";
import { exists } from "../system/exists.ts";

export interface HostFacts {
  /** Undefined where none is mounted. */
  readonly cgroupVersion: 1 | 2 | undefined;
  /** Of 2 MiB, free ones. */
  readonly freeHugePages: number;
  readonly tun: boolean;
}

export async function inspectFacts(cgroupVersion: 1 | 2 | undefined): Promise<HostFacts> {
  const free = await readFile("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "utf8").catch(() => "0");
  return { cgroupVersion, freeHugePages: Number(free.trim()), tun: await exists("/dev/net/tun") };
}

export function factWarnings(facts: HostFacts): string[] {
  const warnings: string[] = [];
  if (facts.cgroupVersion === undefined) {
    warnings.push("no cgroups are mounted: nothing bounds what memory and CPU a VM takes of the host");
  }
  if (!facts.tun) warnings.push("there is no /dev/net/tun (modprobe tun): VMs can't have a network");
  return warnings;
}
