// The rules of the default network. All VMs share one table: each VM has a chain of its own and elements in sets and maps. A
// packet therefore costs the same however many VMs there are.
import { metadataNetworks } from "../plan/egress-policy.ts";
import type { NatPlan } from "../plan/network-plan.ts";
import { egressChain, egressChains, egressJump, egressMatch, egressRemoval } from "./egress.ts";
import { guardRemoval, guardRules } from "./guard.ts";
import { addElement, removeElement, replacedChains, type Table } from "./nft.ts";

export interface NatHost {
  /** VMs may connect to cloud metadata services. */
  readonly allowMetadata: boolean;
}

/**
 * All rules that these VMs need, whether or not some exist already. The VMs' interfaces must exist. The shared rules are
 * written again with every VM, so that they return if somebody flushed them; one transaction, so that no packet meets a gap.
 */
export function natRules(plans: readonly NatPlan[], host: NatHost): string[] {
  const tables = new Set(plans.map(tableOf));
  return [...[...tables].flatMap(sharedRules), ...plans.flatMap((plan) => rulesOf(plan, host))];
}

/** Removes the rules of one VM; those of the table's other VMs stay. */
export function natRemoval(plan: NatPlan): string[] {
  const table = tableOf(plan);
  return [
    ...sharedSets(table),
    // The elements name it.
    `add chain ${egressChain(plan)}`,
    ...elements(plan).flatMap(({ set, element }) => removeElement(table, set, element)),
    ...egressRemoval(plan),
    ...guardRemoval(plan),
  ];
}

const tableOf = (plan: NatPlan): Table => `inet ${plan.table}`;

function sharedSets(table: Table): string[] {
  return [
    `add table ${table}`,
    `add set ${table} taps { type ifname; }`,
    `add set ${table} guests { type ipv4_addr; }`,
    `add map ${table} egress { type ifname : verdict; }`,
    `add map ${table} ports { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }`,
    `add map ${table} any_ports { type inet_proto . inet_service : ipv4_addr . inet_service; }`,
  ];
}

function sharedRules(table: Table): string[] {
  const chain = replacedChains(table);
  const publish = [
    "fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @ports",
    "fib daddr type local dnat ip to meta l4proto . th dport map @any_ports",
  ];
  return [
    ...sharedSets(table),
    ...chain("publish", "nat hook prerouting priority dstnat", publish),
    ...chain("publish_local", "nat hook output priority -100", publish),
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
    ]),
    ...chain("input", "filter hook input priority filter", ["iifname @taps jump judge"]),
  ];
}

function rulesOf(plan: NatPlan, host: NatHost): string[] {
  const refused = [
    ...(host.allowMetadata ? [] : metadataNetworks.map(egressMatch)),
    // VMs reach each other through the host's ports only.
    "oifname @taps ct status & dnat != dnat",
  ];
  return [
    // The host's loopback is routed to the TAP for published ports; the guest must not use that way back.
    ...guardRules(plan, { ipv4: [plan.address], ipv6: undefined, refused: ["ip daddr 127.0.0.0/8"] }),
    ...egressChains(plan, refused),
    ...elements(plan).map(({ set, element }) => addElement(tableOf(plan), set, element)),
  ];
}

function elements(plan: NatPlan): { set: string; element: string }[] {
  return [
    { set: "taps", element: `"${plan.tap}"` },
    { set: "guests", element: plan.address },
    { set: "egress", element: `"${plan.tap}" : ${egressJump(plan)}` },
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
