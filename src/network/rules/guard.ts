// The guard at a VM's TAP. It sees each frame before anything else does, and passes only the VM's own MAC with its own addresses.
import type { NetworkPlan } from "../plan/network-plan.ts";
import { removeChain, removeCounter, replacedChains, type Table } from "./nft.ts";

export const guardCounter = (plan: NetworkPlan): string => `spoofed_${plan.tap}`;
/** Two tables have one: for packets at the TAP, and for the first packets of connections. */
export const floodedCounter = (plan: NetworkPlan): string => `flooded_${plan.tap}`;

const tableOf = (plan: NetworkPlan): Table => `netdev ${plan.table}`;

/** Drops packets above the rate, after a burst of one second's worth. A reject would cost the host an answer to each. */
export function floodRules(plan: NetworkPlan, perSecond: number | undefined): string[] {
  if (perSecond === undefined) return [];
  return [`limit rate over ${perSecond}/second burst ${perSecond} packets counter name ${floodedCounter(plan)} drop`];
}

export interface GuardedAddresses {
  readonly ipv4: readonly string[];
  readonly ipv6: string | undefined;
  /** Matches that are dropped although the sender's address is the VM's. */
  readonly refused: readonly string[];
  /** Marks for what passes. */
  readonly marks?: { readonly arp: number; readonly ip: number };
}

/** The TAP must exist. */
export function guardRules(plan: NetworkPlan, allowed: GuardedAddresses): string[] {
  const table = tableOf(plan);
  const ipv4 = allowed.ipv4.join(", ");
  const pass = (mark: number | undefined): string => (mark === undefined ? "accept" : `meta mark set ${mark} accept`);
  const ipv6 =
    allowed.ipv6 === undefined
      ? []
      : [
          // Only the host speaks as a router.
          "icmpv6 type { nd-router-advert, nd-redirect } drop",
          `ip6 saddr { ${allowed.ipv6}, fe80::/10, :: } accept`,
        ];
  const ofGuest = [
    `arp saddr ether ${plan.guestMac} arp saddr ip { ${ipv4}, 0.0.0.0 } ${pass(allowed.marks?.arp)}`,
    ...allowed.refused.map((match) => `${match} counter name ${guardCounter(plan)} drop`),
    `ip saddr { ${ipv4} } ${pass(allowed.marks?.ip)}`,
    ...ipv6,
  ];
  return [
    `add table ${table}`,
    `add counter ${table} ${guardCounter(plan)}`,
    `add counter ${table} ${floodedCounter(plan)}`,
    ...replacedChains(table)(
      plan.tap,
      `filter hook ingress device "${plan.tap}" priority -300`,
      [
        ...floodRules(plan, plan.limits?.packets),
        ...ofGuest.map((rule) => `ether saddr ${plan.guestMac} ${rule}`),
        `counter name ${guardCounter(plan)}`,
      ],
      "drop",
    ),
  ];
}

/** Idempotent. Some kernels remove the chain together with the TAP. */
export function guardRemoval(plan: NetworkPlan): string[] {
  const table = tableOf(plan);
  return [
    `add table ${table}`,
    ...removeChain(table, plan.tap),
    ...removeCounter(table, guardCounter(plan)),
    ...removeCounter(table, floodedCounter(plan)),
  ];
}
