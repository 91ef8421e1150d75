// The network of one VM, from plan to removal, whichever kind it is.

import * as v from "valibot";
import { detachNamespace, openNamespace } from "./apply/namespace.ts";
import { detachNat, openNat } from "./apply/nat.ts";
import { ask, makeTap, type TapOwner } from "./apply/tools.ts";
import type { NamespacePlan, NetworkPlan } from "./plan/network-plan.ts";
import { refusedCounter } from "./rules/egress.ts";
import { floodedCounter, guardCounter } from "./rules/guard.ts";

/** Plans of all VMs of this driver, as their records tell. */
export type ReadPlans = () => Promise<readonly NetworkPlan[]>;

/**
 * What the VMM needs to start: the VM's interface, through which nothing passes before `openNetwork` is done. Fails with
 * TapTakenError or NetworkSetupError.
 */
export async function makeInterface(options: {
  plan: NetworkPlan;
  /** Who opens the TAP; undefined: root. */
  owner: TapOwner | undefined;
  signal?: AbortSignal | undefined;
}): Promise<void> {
  const { plan, ...others } = options;
  const { tap, tapMac, mtu } = plan;
  await makeTap({ ...others, namespacePath: plan.mode === "namespace" ? plan.path : undefined, tap, tapMac, mtu });
}

/** Puts the rules in place, then lets the interface's frames pass. Fails with NetworkSetupError; the caller then detaches. */
export async function openNetwork(options: {
  plan: NetworkPlan;
  allowMetadata: boolean;
  readPlans: ReadPlans;
  signal?: AbortSignal | undefined;
}): Promise<void> {
  const { plan, allowMetadata, readPlans, signal } = options;
  if (plan.mode === "nat") await openNat({ plan, host: { allowMetadata }, signal });
  else await openNamespace({ plan, readNeighbours: () => neighboursOf(plan, readPlans), signal });
}

/** Idempotent. Fails with NetworkSetupError. */
export async function detachNetwork(options: { plan: NetworkPlan; readPlans: ReadPlans }): Promise<void> {
  const { plan, readPlans } = options;
  if (plan.mode === "nat") {
    const others = async (): Promise<boolean> =>
      (await readPlans()).some((other) => other.mode === "nat" && other.tap !== plan.tap);
    await detachNat({ plan, others });
  } else {
    await detachNamespace({ plan, readNeighbours: () => neighboursOf(plan, readPlans) });
  }
}

export async function neighboursOf(
  plan: { readonly path: string; readonly tap?: string },
  readPlans: ReadPlans,
): Promise<NamespacePlan[]> {
  const plans = await readPlans();
  return plans.filter(
    (other): other is NamespacePlan => other.mode === "namespace" && other.path === plan.path && other.tap !== plan.tap,
  );
}

const countersSchema = v.object({
  nftables: v.array(
    v.looseObject({ counter: v.optional(v.object({ name: v.string(), packets: v.number(), bytes: v.number() })) }),
  ),
});

export interface NetworkCounts {
  /** Connections that the egress policy refused. */
  readonly refused: number;
  /** Frames with somebody else's address. */
  readonly spoofed: number;
  /** Packets and connections beyond the limits. */
  readonly flooded: number;
}

export async function readCounts(options: { plan: NetworkPlan; signal?: AbortSignal }): Promise<NetworkCounts> {
  const { plan, signal } = options;
  const text = await ask({
    namespacePath: plan.mode === "namespace" ? plan.path : undefined,
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
