// The rules inside an allocation's network namespace. The VMs share the allocation's address with the namespace itself, in which
// tasks of other drivers may run. docs/jobs/network.md explains the design: the namespace's interface keeps the address, and the
// mark of a connection decides whether its packets are local or go to a VM's TAP. These connections are a VM's:
// - those to a port that the VM names;
// - those to a port on which nobody in the namespace listens (the first VM's);
// - those that the VM begins.
// All others are the namespace's own.
import type { NamespacePlan } from "../plan/network-plan.ts";
import { arriveJump, connectionsSet, egressChains, judgeJump, limitJump } from "./egress.ts";
import { guardRemoval, guardRules } from "./guard.ts";
import { addElement, newChains, removeTable, removeTables, type Table } from "./nft.ts";

/** Marks a connection, and then its packets, as a VM's. */
const vmMark = 0x4c47_0000;
/** Marks packets that come from a VM and leave the namespace. */
const leavingMark = 0x4c48_0000;
const isVmMark = `ct mark & 0xffff0000 == ${vmMark}`;

export const markOf = (plan: NamespacePlan): number => vmMark + plan.index + 1;
const leavingMarkOf = (plan: NamespacePlan): number => leavingMark + plan.index + 1;
export const routingTableOf = (plan: NamespacePlan): number => 19_270 + plan.index;

/** The IPv6 address of the TAP, which is the guest's gateway. */
export const gatewayIpv6 = "fe80::1";

/** The host as the VMs of an allocation see it. */
export interface NamespaceHost {
  /** The host's own addresses. */
  readonly ipv4: readonly string[];
  readonly ipv6: readonly string[];
  /** Ports that lead to other tasks: those that VMs of this driver publish. */
  readonly publishedPorts: readonly number[];
}

/** All rules of a namespace's VMs, whether or not some exist already. The VMs' interfaces must exist. */
export const namespaceRules = (plans: readonly NamespacePlan[], host: NamespaceHost): string[] => [
  ...namespacePolicy(plans, host),
  ...plans.flatMap(namespaceGuard),
];

/** The rules that need no interface: those of all VMs of a namespace together. */
export function namespacePolicy(plans: readonly NamespacePlan[], host: NamespaceHost): string[] {
  const [first] = plans;
  return first === undefined ? [] : sharedRules(plans, first.table, host);
}

/** `neighbours`: the namespace's VMs that stay. */
export const namespaceRemoval = (
  plan: NamespacePlan,
  neighbours: readonly NamespacePlan[],
  host: NamespaceHost,
): string[] => [...guardRemoval(plan), ...sharedRules(neighbours, plan.table, host)];

export const hostSets = ["host_ipv4", "host_ipv6", "published"] as const;

/** The elements that describe the host; the other rules and their counts stay. */
export function hostElements(name: string, host: NamespaceHost): string[] {
  const table: Table = `inet ${name}`;
  const elementsOf = { host_ipv4: host.ipv4, host_ipv6: host.ipv6, published: host.publishedPorts };
  return hostSets.flatMap((set) => [
    `flush set ${table} ${set}`,
    ...elementsOf[set].map((element) => addElement(table, set, `${element}`)),
  ]);
}

/** The guard of one VM, whose interface must exist. */
export function namespaceGuard(plan: NamespacePlan): string[] {
  const shared = plan.ipv4 === undefined ? [] : [plan.ipv4.address];
  // The guest may send to 127.0.0.0/8: another task of the group may listen there.
  return guardRules(plan, { ipv4: [plan.address, ...shared], ipv6: plan.ipv6?.address, refused: [] });
}

/** Replaces the table: the rules depend on which VMs are in the namespace now. */
function sharedRules(plans: readonly NamespacePlan[], name: string, host: NamespaceHost): string[] {
  const ordered = plans.toSorted((a, b) => a.index - b.index);
  const [first] = ordered;
  if (first === undefined) return removeTables(name);
  const table: Table = `inet ${name}`;
  const chain = newChains(table);
  const toVm = `meta mark & 0xffff0000 == ${vmMark}`;
  const own = first.ipv4?.address;
  const loopbackToVm = own === undefined ? [] : [`${toVm} ip daddr 127.0.0.0/8 dnat ip to ${own}`];
  return [
    ...removeTable(table),
    `add table ${table}`,
    `add set ${table} host_ipv4 { type ipv4_addr; }`,
    `add set ${table} host_ipv6 { type ipv6_addr; }`,
    `add set ${table} published { type inet_service; }`,
    ...hostElements(name, host),
    connectionsSet(table),
    ...ordered.flatMap((plan) =>
      egressChains(plan, {
        toHost: [
          "ct original ip daddr @host_ipv4",
          "ct original ip6 daddr @host_ipv6",
          ...plan.hostNetworks.map((network) => `ct original ip daddr ${network}`),
        ],
        open: ["meta l4proto { tcp, udp } th dport @published"],
        refused: [],
      }),
    ),
    ...markMap(table, "ports", namedPorts(ordered)),
    ...chain("separate", "filter hook prerouting priority raw", ordered.map(separate)),
    ...chain("pick_named", undefined, ["ct mark set meta l4proto . th dport map @ports", "meta mark set ct mark"]),
    ...chain("pick", undefined, [
      "jump pick_named",
      "ct mark != 0 return",
      "meta l4proto { tcp, udp } socket wildcard 0 return",
      "meta l4proto { tcp, udp } socket wildcard 1 return",
      `meta l4proto { tcp, udp } ct mark set ${markOf(first)} meta mark set ct mark`,
    ]),
    ...ordered.flatMap((plan) => chain(`from_${plan.tap}`, undefined, fromVm(plan))),
    ...chain("steer", "filter hook prerouting priority mangle", [
      ...ordered.map((plan) => `iifname "${plan.tap}" goto from_${plan.tap}`),
      `${isVmMark} meta mark set ct mark return`,
      'iifname "lo" return',
      "ct state new fib daddr type local jump pick",
    ]),
    ...chain("loopback_in", "nat hook prerouting priority dstnat", loopbackToVm),
    ...markMap(table, "local_ports", unnamedPorts(ordered, first)),
    ...chain("pick_local", undefined, [
      "jump pick_named",
      "ct mark == 0 ct mark set meta l4proto . th dport map @local_ports",
      "meta mark set ct mark",
    ]),
    ...chain("steer_local", "route hook output priority mangle", [
      `${isVmMark} meta mark set ct mark return`,
      "ct state new fib daddr type local jump pick_local",
    ]),
    ...chain("loopback_out", "nat hook output priority -100", loopbackToVm),
    ...chain("source_in", "nat hook input priority 100", ordered.flatMap(sourceIn)),
    ...chain("source", "nat hook postrouting priority srcnat", ordered.flatMap(sourceOut)),
    ...chain("judge", undefined, [
      "ct direction reply accept",
      "ct state established,related accept",
      "ct state invalid drop",
    ]),
    ...chain(
      "forward",
      "filter hook forward priority filter",
      ordered.flatMap((plan) => judged(plan, ordered)),
    ),
    ...chain(
      "input",
      "filter hook input priority filter",
      ordered.map((plan) => `iifname "${plan.tap}" ct state new ${limitJump(plan)}`),
    ),
  ];
}

/** A map from a port, TCP and UDP, to the mark of the VM whose port it is. */
function markMap(table: Table, name: string, marks: ReadonlyMap<number, number>): string[] {
  return [
    `add map ${table} ${name} { type inet_proto . inet_service : mark; }`,
    ...[...marks].flatMap(([port, mark]) =>
      ["tcp", "udp"].map((protocol) => addElement(table, name, `${protocol} . ${port} : ${mark}`)),
    ),
  ];
}

const namedPorts = (plans: readonly NamespacePlan[]): Map<number, number> =>
  new Map(plans.flatMap((plan) => plan.ports.map(({ guestPort }) => [guestPort, markOf(plan)] as const)));

/**
 * If a connection begins in the namespace, no match tells whether somebody there listens. The group's ports that no VM names
 * are therefore the first VM's.
 */
function unnamedPorts(plans: readonly NamespacePlan[], first: NamespacePlan): Map<number, number> {
  const named = namedPorts(plans);
  return new Map(first.unnamedPorts.filter((port) => !named.has(port)).map((port) => [port, markOf(first)]));
}

/** A VM and the namespace may both connect from one source port to one place: a conntrack zone for each VM keeps them apart. */
const separate = (plan: NamespacePlan): string => `iifname "${plan.tap}" ct original zone set ${plan.index + 1}`;

function fromVm(plan: NamespacePlan): string[] {
  const mark = markOf(plan);
  return [
    // To another VM of the group.
    `ct mark != ${mark} ${isVmMark} meta mark set ct mark return`,
    "ct state new fib daddr type local jump pick_named",
    // A connection to its own ports would not have left the guest.
    `ct mark == ${mark} ct direction original meta mark set 0`,
    "meta mark != 0 return",
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
    // These leave by another interface of the namespace.
    `meta mark ${leavingMarkOf(plan)} oifname != { "lo", "${plan.device}", "${plan.tap}" } masquerade`,
    `oifname "${plan.tap}" meta nfproto ipv4 fib saddr type local snat ip to ${plan.gateway}`,
    ...(plan.ipv6 === undefined
      ? []
      : [`oifname "${plan.tap}" ip6 saddr ${plan.ipv6.address} snat ip6 to ${gatewayIpv6}`]),
  ];
}

/** The policy applies to what lies outside the group: the group's tasks share a network, as with any driver. */
function judged(plan: NamespacePlan, all: readonly NamespacePlan[]): string[] {
  const taps = all.map(({ tap }) => `"${tap}"`).join(", ");
  const leaves = `iifname "${plan.tap}" oifname != { ${taps} }`;
  const arrives = `oifname "${plan.tap}" ct state new ${arriveJump(plan)}`;
  return [arrives, `${leaves} jump judge`, `${leaves} ${judgeJump(plan)}`];
}
