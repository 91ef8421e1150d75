// Which networks the VMs of this host have, as their records tell.
import type { NetworkPlan } from "../../network/plan/network-plan.ts";
import { listRecords } from "./list-records.ts";
import type { MachineRecord } from "./manifest.ts";

/** Of all VMs that have a network, by default in whatever phase. */
export async function listNetworkPlans(
  machinesDirectory: string,
  phases: readonly MachineRecord["phase"][] = ["starting", "running", "ending"],
): Promise<NetworkPlan[]> {
  const records = await listRecords(machinesDirectory);
  return records.filter(({ phase }) => phases.includes(phase)).flatMap(({ network }) => network ?? []);
}
