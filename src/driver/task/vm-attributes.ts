// The facts about a task's VM for Nomad: the attributes of an inspection, which the command line shows too, and the network's address.
import type { MachineRecord } from "../../machine/records/manifest.ts";
import { readCounts } from "../../network/network.ts";
import { byMode, type NetworkPlan } from "../../network/plan/network-plan.ts";
import type { NetworkOverride } from "../nomad-driver.ts";

export async function vmAttributes(record: MachineRecord): Promise<Record<string, string>> {
  return {
    vm: record.id,
    vmm: `${record.vmm.kind} ${record.vmm.version}`,
    acceleration: record.vmm.acceleration,
    vcpu_count: `${record.vcpuCount}`,
    mem_size: `${record.memSizeMib}`,
    ...(await networkAttributes(record.network)),
  };
}

/** Only if the driver itself made the network. Like docker's default bridge, it is not advertised by itself. */
export function networkOverride(plan: NetworkPlan | undefined): NetworkOverride | undefined {
  if (plan?.mode !== "nat") return undefined;
  const portMap = Object.fromEntries(plan.ports.map(({ label, guestPort }) => [label, guestPort]));
  return { address: plan.address, portMap, autoAdvertise: false };
}

/** For an inspection: the VM's place and its refused packets. */
async function networkAttributes(plan: NetworkPlan | undefined): Promise<Record<string, string>> {
  if (plan === undefined) return { network: "none" };
  // A VM that has ended may have no rules any more.
  const counts = await readCounts({ plan }).catch(() => undefined);
  return {
    network: byMode(plan, { nat: () => "default", namespace: () => "group" }),
    address: ownAddress(plan) ?? "",
    tap: plan.tap,
    max_connections: plan.limits?.open === undefined ? "unlimited" : `${plan.limits.open}`,
    ...(counts === undefined
      ? {}
      : {
          egress_refused_packets: `${counts.refused}`,
          spoofed_packets: `${counts.spoofed}`,
          flooded_packets: `${counts.flooded}`,
          excess_connection_packets: `${counts.excess}`,
        }),
  };
}

/** The VM's own view of its address; undefined with loopback only. */
export function ownAddress(plan: NetworkPlan | undefined): string | undefined {
  return (
    plan && byMode(plan, { nat: ({ address }) => address, namespace: ({ ipv4, ipv6 }) => (ipv4 ?? ipv6)?.address })
  );
}
