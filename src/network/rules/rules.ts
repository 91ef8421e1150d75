// Rules of nftables that both kinds of network share: the guard at a VM's TAP, and its egress policy.
import { type EgressRule, egressMatch } from "../plan/egress-policy.ts";
import type { NetworkPlan } from "../plan/network-plan.ts";

export const guardCounter = (plan: NetworkPlan): string => `spoofed_${plan.tap}`;
export const refusedCounter = (plan: NetworkPlan): string => `refused_${plan.tap}`;
/** Of two tables: packets at the TAP, and connections' first packets. */
export const floodedCounter = (plan: NetworkPlan): string => `flooded_${plan.tap}`;
const egressChain = (plan: NetworkPlan): string => `egress_${plan.tap}`;
const refuseChain = (plan: NetworkPlan): string => `refuse_${plan.tap}`;

/** One of each table: whoever takes a VM's rules away takes these chains. */
export const chainsOf = (plan: NetworkPlan): readonly { family: string; table: string; name: string }[] => [
  { family: "netdev", table: plan.table, name: plan.tap },
  { family: "inet", table: plan.table, name: egressChain(plan) },
];

/** Drops what comes faster, a second's worth at once aside. An answer would cost the host as much again. */
function atMost(plan: NetworkPlan, perSecond: number | undefined): string[] {
  if (perSecond === undefined) return [];
  return [`limit rate over ${perSecond}/second burst ${perSecond} packets counter name ${floodedCounter(plan)} drop`];
}

/**
 * At the TAP's ingress, before anything else sees a frame: only the VM's own MAC with its own addresses passes. The
 * TAP must exist.
 */
export function guardRules(plan: NetworkPlan): string[] {
  const chain = `netdev ${plan.table} ${plan.tap}`;
  const own = plan.mode === "nat" ? [] : [plan.ipv4?.address].filter((address) => address !== undefined);
  const four = [plan.address, ...own].join(", ");
  // Another task of the group may listen at 127.0.0.1 of the allocation; of the host, nobody's loopback is to be had.
  const beyond = plan.mode === "nat" ? [`ip daddr 127.0.0.0/8 counter name ${guardCounter(plan)} drop`] : [];
  const six =
    plan.mode === "namespace" && plan.ipv6 !== undefined
      ? [
          // A router's words are the host's alone.
          "icmpv6 type { nd-router-advert, nd-redirect } drop",
          `ip6 saddr { ${plan.ipv6.address}, fe80::/10, :: } accept`,
        ]
      : [];
  const accepted = [
    `arp saddr ether ${plan.guestMac} arp saddr ip { ${four}, 0.0.0.0 } accept`,
    ...beyond,
    `ip saddr { ${four} } accept`,
    ...six,
  ];
  return [
    `add table netdev ${plan.table}`,
    `add counter netdev ${plan.table} ${guardCounter(plan)}`,
    `add counter netdev ${plan.table} ${floodedCounter(plan)}`,
    `add chain ${chain} { type filter hook ingress device "${plan.tap}" priority -300; policy drop; }`,
    `flush chain ${chain}`,
    ...atMost(plan, plan.limits?.packets).map((rule) => `add rule ${chain} ${rule}`),
    ...accepted.map((rule) => `add rule ${chain} ether saddr ${plan.guestMac} ${rule}`),
    `add rule ${chain} counter name ${guardCounter(plan)}`,
  ];
}

/** Idempotent: what is gone is made first. A chain vanishes with its TAP in some kernels. */
export function guardRemoval(plan: NetworkPlan): string[] {
  const { table, tap } = plan;
  return [
    `add table netdev ${table}`,
    `add chain netdev ${table} ${tap}`,
    `flush chain netdev ${table} ${tap}`,
    `delete chain netdev ${table} ${tap}`,
    `add counter netdev ${table} ${guardCounter(plan)}`,
    `delete counter netdev ${table} ${guardCounter(plan)}`,
    `add counter netdev ${table} ${floodedCounter(plan)}`,
    `delete counter netdev ${table} ${floodedCounter(plan)}`,
  ];
}

/**
 * The chains that judge a connection which the VM begins. `first`: matches that are refused before all else.
 */
export function egressRules(plan: NetworkPlan, first: readonly string[]): string[] {
  const { table, egress } = plan;
  const chain = `inet ${table} ${egressChain(plan)}`;
  const refuse = `inet ${table} ${refuseChain(plan)}`;
  const lines = (rules: readonly EgressRule[], verdict: string): string[] =>
    rules.map((rule) => `add rule ${chain} ${egressMatch(rule)} ${verdict}`);
  const refused = `goto ${refuseChain(plan)}`;
  return [
    `add counter inet ${table} ${refusedCounter(plan)}`,
    `add counter inet ${table} ${floodedCounter(plan)}`,
    `add chain ${refuse}`,
    `add chain ${chain}`,
    `flush chain ${refuse}`,
    `flush chain ${chain}`,
    `add rule ${refuse} counter name ${refusedCounter(plan)}`,
    `add rule ${refuse} meta l4proto tcp reject with tcp reset`,
    `add rule ${refuse} reject with icmpx type admin-prohibited`,
    ...atMost(plan, plan.limits?.connections).map((rule) => `add rule ${chain} ${rule}`),
    ...first.map((match) => `add rule ${chain} ${match} ${refused}`),
    ...lines(egress.floor, refused),
    ...lines(egress.deny, refused),
    ...lines(egress.allow, "accept"),
    ...(egress.default === "deny" ? [`add rule ${chain} ${refused}`] : []),
  ];
}

export function egressRemoval(plan: NetworkPlan): string[] {
  const { table } = plan;
  const chains = [egressChain(plan), refuseChain(plan)];
  return [
    ...chains.flatMap((chain) => [`add chain inet ${table} ${chain}`, `flush chain inet ${table} ${chain}`]),
    ...chains.map((chain) => `delete chain inet ${table} ${chain}`),
    `add counter inet ${table} ${refusedCounter(plan)}`,
    `delete counter inet ${table} ${refusedCounter(plan)}`,
    `add counter inet ${table} ${floodedCounter(plan)}`,
    `delete counter inet ${table} ${floodedCounter(plan)}`,
  ];
}

export const egressJump = (plan: NetworkPlan): string => `jump ${egressChain(plan)}`;
