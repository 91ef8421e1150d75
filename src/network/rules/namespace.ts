// The rules inside an allocation's network namespace, where VMs share the allocation's address with the namespace itself (and
// with whatever tasks of other drivers run there). docs/jobs/network.md tells the idea: the address stays at the namespace's
// interface; a connection's mark decides whether its packets are routed to a VM's TAP or are local. Which connections are a
// VM's: those to ports that the VM names; those to a port at which nobody in the namespace listens (the first VM's); those
// that a VM begins. All else is the namespace's own.
import type { NamespacePlan } from "../plan/network-plan.ts";
import { egressJump, egressRules } from "./rules.ts";

/** Marks a connection, and then its packets, as a VM's. */
const vmMark = 0x4c47_0000;
/** Marks packets that come from a VM and leave the namespace. */
const leavingMark = 0x4c48_0000;
const isVmMark = `ct mark & 0xffff0000 == ${vmMark}`;

export const markOf = (plan: NamespacePlan): number => vmMark + plan.index + 1;
const leavingMarkOf = (plan: NamespacePlan): number => leavingMark + plan.index + 1;
export const routingTableOf = (plan: NamespacePlan): number => 19_270 + plan.index;

/** Of the tap's end, for IPv6: the guest's way out. */
export const gatewayIpv6 = "fe80::1";

/** All rules of a namespace, for the VMs that are in it now; what was there of ours before is replaced. */
export function namespaceRules(plans: readonly NamespacePlan[], table: string): string[] {
  const ordered = plans.toSorted((a, b) => a.index - b.index);
  const first = ordered[0];
  // Marks stand in rules by number: a stale chain harms nothing, but its counters go.
  const head = [`add table inet ${table}`, `delete table inet ${table}`];
  if (first === undefined) return [...head, `add table netdev ${table}`, `delete table netdev ${table}`];
  const chain = (name: string, hook: string, rules: readonly string[]): string[] => [
    `add chain inet ${table} ${name}${hook === "" ? "" : ` { type ${hook}; policy accept; }`}`,
    ...rules.map((rule) => `add rule inet ${table} ${name} ${rule}`),
  ];
  const toVm = `meta mark & 0xffff0000 == ${vmMark}`;
  const own = first.ipv4?.address;
  const loopbackToVm = own === undefined ? [] : [`${toVm} ip daddr 127.0.0.0/8 dnat ip to ${own}`];
  return [
    ...head,
    `add table inet ${table}`,
    ...ordered.flatMap((plan) => egressRules(plan, [])),
    ...portMap(ordered, table),
    ...chain("separate", "filter hook prerouting priority raw", ordered.map(separate)),
    ...chain("pick_named", "", ["ct mark set meta l4proto . th dport map @ports", "meta mark set ct mark"]),
    ...chain("pick", "", [
      "jump pick_named",
      "ct mark != 0 return",
      "meta l4proto { tcp, udp } socket wildcard 0 return",
      "meta l4proto { tcp, udp } socket wildcard 1 return",
      `meta l4proto { tcp, udp } ct mark set ${markOf(first)} meta mark set ct mark`,
    ]),
    ...ordered.flatMap((plan) => chain(`from_${plan.tap}`, "", fromVm(plan))),
    ...chain("steer", "filter hook prerouting priority mangle", [
      ...ordered.map((plan) => `iifname "${plan.tap}" goto from_${plan.tap}`),
      `${isVmMark} meta mark set ct mark return`,
      'iifname "lo" return',
      "ct state new fib daddr type local jump pick",
    ]),
    ...chain("loopback_in", "nat hook prerouting priority dstnat", loopbackToVm),
    ...chain("steer_local", "route hook output priority mangle", [
      `${isVmMark} meta mark set ct mark return`,
      "ct state new fib daddr type local jump pick_local",
    ]).toSpliced(0, 0, ...pickLocal(ordered, table)),
    ...chain("loopback_out", "nat hook output priority -100", loopbackToVm),
    ...chain("source_in", "nat hook input priority 100", ordered.flatMap(sourceIn)),
    ...chain("source", "nat hook postrouting priority srcnat", ordered.flatMap(sourceOut)),
    ...chain("judge", "", [
      "ct direction reply accept",
      "ct state established,related accept",
      "ct state invalid drop",
    ]),
    ...chain(
      "forward",
      "filter hook forward priority filter",
      ordered.flatMap((plan) => judged(plan, ordered)),
    ),
  ];
}

function portMap(plans: readonly NamespacePlan[], table: string): string[] {
  const lines = [`add map inet ${table} ports { type inet_proto . inet_service : mark; }`];
  const named = new Map(plans.flatMap((plan) => plan.ports.map(({ guestPort }) => [guestPort, markOf(plan)] as const)));
  for (const [port, mark] of named) lines.push(...elementsFor(table, "ports", port, mark));
  return lines;
}

const elementsFor = (table: string, map: string, port: number, mark: number): string[] =>
  ["tcp", "udp"].map((protocol) => `add element inet ${table} ${map} { ${protocol} . ${port} : ${mark} }`);

/**
 * For connections that begin in the namespace nothing tells whether somebody there listens: the group's ports that no VM
 * names are the first VM's as well.
 */
function pickLocal(plans: readonly NamespacePlan[], table: string): string[] {
  const [first] = plans;
  const named = new Set(plans.flatMap((plan) => plan.ports.map(({ guestPort }) => guestPort)));
  const unnamed = (first?.unnamedPorts ?? []).filter((port) => !named.has(port));
  return [
    `add map inet ${table} local_ports { type inet_proto . inet_service : mark; }`,
    ...(first === undefined ? [] : unnamed.flatMap((port) => elementsFor(table, "local_ports", port, markOf(first)))),
    `add chain inet ${table} pick_local`,
    `add rule inet ${table} pick_local jump pick_named`,
    `add rule inet ${table} pick_local ct mark == 0 ct mark set meta l4proto . th dport map @local_ports`,
    `add rule inet ${table} pick_local meta mark set ct mark`,
  ];
}

/** A VM and the namespace may use the same source port to the same place: they are kept apart by a zone of their own. */
const separate = (plan: NamespacePlan): string => `iifname "${plan.tap}" ct original zone set ${plan.index + 1}`;

function fromVm(plan: NamespacePlan): string[] {
  const mark = markOf(plan);
  return [
    // To another VM of the group.
    `ct mark != ${mark} ${isVmMark} meta mark set ct mark return`,
    "ct state new fib daddr type local jump pick_named",
    // Its own ports it would have reached by itself.
    `ct mark == ${mark} ct direction original meta mark set 0`,
    `meta mark != 0 return`,
    `ct state new ct mark set ${mark}`,
    `ct direction original meta mark set ${leavingMarkOf(plan)}`,
  ];
}

function sourceIn(plan: NamespacePlan): string[] {
  if (plan.ipv4 === undefined) return [];
  return [`iifname "${plan.tap}" ip saddr ${plan.ipv4.address} snat ip to ${plan.address}`];
}

function sourceOut(plan: NamespacePlan): string[] {
  const leaving = `meta mark ${leavingMarkOf(plan)} oifname "${plan.device}"`;
  return [
    ...(plan.ipv4 === undefined ? [] : [`${leaving} snat ip to ${plan.ipv4.address}`]),
    ...(plan.ipv6 === undefined ? [] : [`${leaving} snat ip6 to ${plan.ipv6.address}`]),
    // By another interface of the namespace.
    `meta mark ${leavingMarkOf(plan)} oifname != { "lo", "${plan.device}", "${plan.tap}" } masquerade`,
    `oifname "${plan.tap}" meta nfproto ipv4 fib saddr type local snat ip to ${plan.gateway}`,
    ...(plan.ipv6 === undefined
      ? []
      : [`oifname "${plan.tap}" ip6 saddr ${plan.ipv6.address} snat ip6 to ${gatewayIpv6}`]),
  ];
}

/** The policy is about what lies outside of the group: its tasks share a network as they do with any driver. */
function judged(plan: NamespacePlan, all: readonly NamespacePlan[]): string[] {
  const taps = all.map(({ tap }) => `"${tap}"`).join(", ");
  const leaves = `iifname "${plan.tap}" oifname != { ${taps} }`;
  return [`${leaves} jump judge`, `${leaves} ${egressJump(plan)}`];
}
