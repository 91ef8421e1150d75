// Which networks the VMs of this host have, as their records tell.
import type { NetworkPlan } from "../network/network-plan.ts";
import { listRecords } from "./list-records.ts";

/** Of all VMs that have a network, in whatever phase. */
export async function listNetworkPlans(machinesDirectory: string): Promise<NetworkPlan[]> {
  return (await listRecords(machinesDirectory)).flatMap((record) => record.network ?? []);
}
