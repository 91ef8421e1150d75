// A VM's network, between its start and src/network.
import { TapTakenError } from "../../network/errors.ts";
import { bringInterfaceHome, makeInterface } from "../../network/network.ts";
import { type NetworkPlan, namespacePathOf } from "../../network/plan/network-plan.ts";
import type { VmConfig } from "../../vmm/vmm.ts";
import { type MachineRecord, withoutNetwork } from "../records/manifest.ts";
import type { VmRecords } from "../records/vm-records.ts";

export interface MachineNetwork {
  readonly plan: NetworkPlan;
}

export function vmNetwork(plan: NetworkPlan | undefined): Pick<VmConfig, "networkInterfaces"> {
  if (plan === undefined) return {};
  const { tap, tapMac, mtu, guestMac } = plan;
  return { networkInterfaces: [{ tap, tapMac, mtu, guestMac, netns: namespacePathOf(plan) }] };
}

/** Makes the interface where it belongs, for a VMM that gets it as a descriptor. The record holds the plan by then. */
export async function makeVmInterface(options: {
  network: MachineNetwork | undefined;
  signal: AbortSignal;
}): Promise<void> {
  const { network, signal } = options;
  if (network !== undefined) await makeInterface({ plan: network.plan, signal });
}

/** Resolves when the guest has its network. The guest can boot before. */
export async function openVmNetwork(options: {
  network: MachineNetwork | undefined;
  /** The namespace of a VMM that has opened the interface there; undefined: the interface is where it belongs. */
  away: string | undefined;
  records: VmRecords;
  signal: AbortSignal;
}): Promise<void> {
  const { network, away, records, signal } = options;
  if (network === undefined) return;
  // The kernel removes the interface together with the VMM's namespace if the VMM dies before.
  if (away !== undefined) await bringInterfaceHome({ plan: network.plan, away, signal });
  await records.networks.open({ plan: network.plan, signal });
}

/** The TAP of another driver's VM must not be removed with this VM's traces. */
export function withoutForeignTap(record: MachineRecord, error: unknown): MachineRecord {
  return error instanceof TapTakenError ? withoutNetwork(record) : record;
}
