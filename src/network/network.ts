// The network of one VM, of either kind: make the interface, open, detach, and count what was dropped.

import * as v from "valibot";
import { detachNamespace, openNamespace } from "./apply/namespace.ts";
import { detachNat, openNat } from "./apply/nat.ts";
import { ask, makeTap, type TapOwner } from "./host/tools.ts";
import { byMode, type NetworkPlan, namespacePathOf, type PlanRecords } from "./plan/network-plan.ts";
import { refusedCounter } from "./rules/egress.ts";
import { floodedCounter, guardCounter } from "./rules/guard.ts";

/**
 * Makes the interface that the VMM needs to start. No frame passes it before `openNetwork`. Fails with TapTakenError or
 * NetworkSetupError.
 */
export async function makeInterface(options: {
  plan: NetworkPlan;
  /** The user that opens the TAP; undefined: root. */
  owner: TapOwner | undefined;
  signal?: AbortSignal | undefined;
}): Promise<void> {
  const { plan, ...others } = options;
  const { tap, tapMac, mtu } = plan;
  await makeTap({ ...others, namespacePath: namespacePathOf(plan), tap, tapMac, mtu });
}

/** Adds the rules, then lets the interface's frames pass. Fails with NetworkSetupError; the caller then detaches. */
export async function openNetwork(options: {
  plan: NetworkPlan;
  allowMetadata: boolean;
  records: PlanRecords;
  signal?: AbortSignal | undefined;
}): Promise<void> {
  const { allowMetadata, records, signal } = options;
  await byMode(options.plan, {
    nat: (plan) => openNat({ plan, host: { allowMetadata }, signal }),
    namespace: (plan) => openNamespace({ plan, records, signal }),
  });
}

/** Idempotent. Fails with NetworkSetupError. */
export async function detachNetwork(options: { plan: NetworkPlan; records: PlanRecords }): Promise<void> {
  const { records } = options;
  await byMode(options.plan, {
    nat: (plan) => detachNat({ plan, records }),
    namespace: (plan) => detachNamespace({ plan, records }),
  });
}

const countersSchema = v.object({
  nftables: v.array(
    v.looseObject({ counter: v.optional(v.object({ name: v.string(), packets: v.number(), bytes: v.number() })) }),
  ),
});

export interface NetworkCounts {
  /** Connections that the egress policy refused. */
  readonly refused: number;
  /** Frames whose source address is not the VM's. */
  readonly spoofed: number;
  /** Packets and connections above the limits. */
  readonly flooded: number;
}

/** Counts since the rules were added. Fails with CommandError. */
export async function readCounts(options: {
  plan: NetworkPlan;
  signal?: AbortSignal | undefined;
}): Promise<NetworkCounts> {
  const { plan, signal } = options;
  const text = await ask({
    namespacePath: namespacePathOf(plan),
    signal,
    argv: ["nft", "-j", "list", "counters"],
  });
  const { nftables } = v.parse(countersSchema, JSON.parse(text));
  const packets = (name: string): number =>
    nftables.reduce((sum, { counter }) => (counter?.name === name ? sum + counter.packets : sum), 0);
  return {
    refused: packets(refusedCounter(plan)),
    spoofed: packets(guardCounter(plan)),
    flooded: packets(floodedCounter(plan)),
  };
}
