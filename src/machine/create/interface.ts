// A VM's network, between its start and src/network.
import { TapTakenError } from "../../network/errors.ts";
import { makeInterface } from "../../network/network.ts";
import { type NetworkPlan, namespacePathOf } from "../../network/plan/network-plan.ts";
import type { VmConfig, VmUser } from "../../vmm/vmm.ts";
import type { MachineRecord } from "../records/manifest.ts";
import type { VmRecords } from "../records/vm-records.ts";

export interface MachineNetwork {
  readonly plan: NetworkPlan;
  /** The cloud's metadata service may be reached. */
  readonly allowMetadata: boolean;
}

export function vmNetwork(plan: NetworkPlan | undefined): Pick<VmConfig, "networkInterfaces" | "netns"> {
  if (plan === undefined) return {};
  return {
    networkInterfaces: [{ tap: plan.tap, guestMac: plan.guestMac }],
    netns: namespacePathOf(plan),
  };
}

/** Makes the interface that the VMM opens. The record holds the plan by then. */
export async function makeVmInterface(options: {
  network: MachineNetwork | undefined;
  /** The VMM's user; undefined: root. */
  user: VmUser | undefined;
  signal: AbortSignal;
}): Promise<void> {
  const { network, user, signal } = options;
  if (network !== undefined) await makeInterface({ plan: network.plan, owner: user, signal });
}

/** Resolves when the guest has its network. The guest can boot before. */
export async function openVmNetwork(options: {
  network: MachineNetwork | undefined;
  records: VmRecords;
  signal: AbortSignal;
}): Promise<void> {
  const { network, records, signal } = options;
  if (network === undefined) return;
  await records.networks.open({ ...network, signal });
}

/** The TAP of another driver's VM must not be removed with this VM's traces. */
export function withoutForeignTap(record: MachineRecord, error: unknown): MachineRecord {
  if (!(error instanceof TapTakenError)) return record;
  const { network: _, ...rest } = record;
  return rest;
}
