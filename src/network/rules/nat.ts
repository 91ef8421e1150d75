// The rules of the default network. All VMs share one table: each VM has a chain of its own and elements in sets and maps. A
// packet therefore costs the same however many VMs there are.
//
// The rules only add to what the kernel's routing allows, so that a VM without rules has no network: the route to a guest stands
// in a table that only packets with both marks see. The guard sets the first mark, and this table the second. Without them the
// kernel finds no way back to the guest, and drops the guest's packets before any program or other host receives them.
import type { NatPlan } from "../plan/network-plan.ts";
import { arriveJump, connectionsSet, egressChains, egressNames, egressRemoval, judgeJump } from "./egress.ts";
import { guardRemoval, guardRules } from "./guard.ts";
import { addElement, removeElement, replacedChains, type Table } from "./nft.ts";

export interface NatHost {
  /** The host's interfaces at which VMs' packets may leave. */
  readonly uplinks: readonly string[];
}

/** The guard passed the packet. */
const guardedMark = 0x0100_0000;
/** The routing rule's mark and mask: the guard and this table passed the packet, or it goes to a guest. */
export const admittedMark = 0x0300_0000;

/**
 * All rules that these VMs need, whether or not some exist already. The VMs' interfaces must exist. The shared rules are
 * written again with every VM, so that they return if somebody flushed them; one transaction, so that no packet meets a gap.
 */
export const natRules = (plans: readonly NatPlan[], host: NatHost): string[] => [
  ...natPolicy(plans, host),
  ...plans.flatMap(natGuard),
];

/** The rules that need no interface. Without the guard's, no packet of the VMs passes. */
export function natPolicy(plans: readonly NatPlan[], host: NatHost): string[] {
  const tables = new Set(plans.map(tableOf));
  return [...[...tables].flatMap((table) => sharedRules(table, host)), ...plans.flatMap(policyOf)];
}

/** The guard of one VM, whose interface must exist. */
export const natGuard = (plan: NatPlan): string[] =>
  guardRules(plan, {
    ipv4: [plan.address],
    ipv6: undefined,
    // The host's loopback may be routed to the TAP for published ports; the guest must not use that way back.
    refused: ["ip daddr 127.0.0.0/8"],
    marks: { arp: admittedMark, ip: guardedMark },
  });

/** Removes the rules of one VM; those of the table's other VMs stay. */
export function natRemoval(plan: NatPlan): string[] {
  const table = tableOf(plan);
  return [
    ...sharedSets(table),
    // The elements name them.
    ...egressNames(plan),
    ...elements(plan).flatMap(({ set, element }) => removeElement(table, set, element)),
    ...egressRemoval(plan),
    ...guardRemoval(plan),
  ];
}

const tableOf = (plan: NatPlan): Table => `inet ${plan.table}`;

export const uplinksSet = "uplinks";

/** The uplinks as they are now; the other rules stay. */
export const uplinkElements = (table: Table, host: NatHost): string[] => [
  `flush set ${table} ${uplinksSet}`,
  ...host.uplinks.map((name) => addElement(table, uplinksSet, `"${name}"`)),
];

function sharedSets(table: Table): string[] {
  return [
    `add table ${table}`,
    `add set ${table} taps { type ifname; }`,
    `add set ${table} guests { type ipv4_addr; }`,
    `add set ${table} ${uplinksSet} { type ifname; }`,
    connectionsSet(table),
    `add map ${table} egress { type ifname : verdict; }`,
    `add map ${table} arrivals { type ifname : verdict; }`,
    `add map ${table} ports { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }`,
    `add map ${table} any_ports { type inet_proto . inet_service : ipv4_addr . inet_service; }`,
  ];
}

function sharedRules(table: Table, host: NatHost): string[] {
  const chain = replacedChains(table);
  const publish = [
    "fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @ports",
    "fib daddr type local dnat ip to meta l4proto . th dport map @any_ports",
  ];
  const admit = `meta mark set meta mark | ${admittedMark}`;
  return [
    ...sharedSets(table),
    ...uplinkElements(table, host),
    ...chain("admit", "filter hook prerouting priority raw", [
      `meta mark ${guardedMark} iifname @taps meta mark set ${admittedMark}`,
    ]),
    ...chain("publish", "nat hook prerouting priority dstnat", publish),
    // After the translation of addresses, in both directions of a connection.
    ...chain("admit_in", "filter hook prerouting priority -99", [`iifname != @taps ip daddr @guests ${admit}`]),
    ...chain("publish_local", "nat hook output priority -100", publish),
    ...chain("admit_local", "route hook output priority -99", [`ip daddr @guests ${admit}`]),
    ...chain("masquerade_out", "nat hook postrouting priority srcnat", [
      "ip saddr @guests masquerade",
      "oifname @taps ip saddr 127.0.0.0/8 masquerade",
    ]),
    ...chain("judge", undefined, [
      "ct state established,related accept",
      "ct state invalid drop",
      "iifname vmap @egress",
    ]),
    ...chain("forward", "filter hook forward priority filter", [
      "iifname @taps jump judge",
      "oifname @taps ct state established,related accept",
      // A VM is reached through the host's ports only, not by a route to its address.
      "oifname @taps ct status & dnat != dnat drop",
      "oifname vmap @arrivals",
    ]),
    ...chain("input", "filter hook input priority filter", ["iifname @taps jump judge"]),
  ];
}

const policyOf = (plan: NatPlan): string[] => [
  ...egressChains(plan, {
    // All that the host itself receives: at its addresses, and by broadcast and multicast.
    toHost: ["fib daddr type != unicast"],
    open: [],
    // VMs reach each other, and the host's other networks, through the host's ports only.
    refused: ["fib daddr type unicast oifname != @uplinks ct status & dnat != dnat"],
  }),
  ...elements(plan).map(({ set, element }) => addElement(tableOf(plan), set, element)),
];

function elements(plan: NatPlan): { set: string; element: string }[] {
  return [
    { set: "taps", element: `"${plan.tap}"` },
    { set: "guests", element: plan.address },
    { set: "egress", element: `"${plan.tap}" : ${judgeJump(plan)}` },
    { set: "arrivals", element: `"${plan.tap}" : ${arriveJump(plan)}` },
    ...portElements(plan),
  ];
}

function portElements(plan: NatPlan): { set: string; element: string }[] {
  return plan.ports.flatMap(({ hostIp, hostPort, guestPort }) =>
    ["tcp", "udp"].map((protocol) => {
      const rest = `${protocol} . ${hostPort} : ${plan.address} . ${guestPort}`;
      return hostIp === "" ? { set: "any_ports", element: rest } : { set: "ports", element: `${hostIp} . ${rest}` };
    }),
  );
}
