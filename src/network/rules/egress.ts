// The chains that judge each connection which a VM begins: how many it may have, which services of the host it may reach, and its
// egress policy.
import { type EgressRule, metadataFloor } from "../plan/egress-policy.ts";
import type { NetworkPlan } from "../plan/network-plan.ts";
import { floodedCounter, floodRules } from "./guard.ts";
import { removeChain, removeCounter, replacedChains, type Table } from "./nft.ts";

export const refusedCounter = (plan: NetworkPlan): string => `refused_${plan.tap}`;
/** Counts the packets that would have begun a connection beyond the VM's number. */
export const excessCounter = (plan: NetworkPlan): string => `excess_${plan.tap}`;
const judgeName = (plan: NetworkPlan): string => `egress_${plan.tap}`;
const refuseName = (plan: NetworkPlan): string => `refuse_${plan.tap}`;
const hostName = (plan: NetworkPlan): string => `host_${plan.tap}`;
const limitName = (plan: NetworkPlan): string => `limit_${plan.tap}`;
const arriveName = (plan: NetworkPlan): string => `arrive_${plan.tap}`;
const names = [judgeName, hostName, refuseName, limitName, arriveName];

const tableOf = (plan: NetworkPlan): Table => `inet ${plan.table}`;

export const judgeJump = (plan: NetworkPlan): string => `jump ${judgeName(plan)}`;
/** For the first packet of a connection from the VM. */
export const limitJump = (plan: NetworkPlan): string => `jump ${limitName(plan)}`;
/** For the first packet of a connection to the VM. */
export const arriveJump = (plan: NetworkPlan): string => `jump ${arriveName(plan)}`;

/** The connections of each VM, found by its interface: the kernel adds and removes the elements. */
export const connectionsSet = (table: Table): string =>
  `add set ${table} connections { type ifname; size 65535; flags dynamic; }`;

/** Matches the first packet of a connection, by the address that the guest asked for. */
export function egressMatch(rule: EgressRule): string {
  const family = rule.version === 4 ? "ip" : "ip6";
  const protocols = rule.protocol === "any" ? "{ tcp, udp }" : rule.protocol;
  const withProtocol = rule.ports !== undefined || rule.protocol !== "any";
  return [
    `ct original ${family} daddr ${rule.network}`,
    ...(withProtocol ? [`meta l4proto ${protocols}`] : []),
    ...(rule.ports === undefined ? [] : [`ct original proto-dst ${rule.ports[0]}-${rule.ports[1]}`]),
  ].join(" ");
}

/** The plan of an older driver leaves the metadata services out. */
const floorOf = ({ egress, hostAccess }: NetworkPlan): readonly EgressRule[] =>
  hostAccess === undefined ? [...metadataFloor([]), ...egress.floor] : egress.floor;

/** The chains that `judgeJump`, `limitJump` and `arriveJump` need, beside the table's set of connections. */
export function egressChains(
  plan: NetworkPlan,
  place: {
    /** Matches of packets to an address of the host. */
    readonly toHost: readonly string[];
    /** Matches of packets to services of the host that are open to every VM. */
    readonly open: readonly string[];
    /** Matches that are refused before the policy is asked. */
    readonly refused: readonly string[];
  },
): string[] {
  const { egress, limits } = plan;
  const table = tableOf(plan);
  const chain = replacedChains(table);
  const lines = (rules: readonly EgressRule[], verdict: string): string[] =>
    rules.map((rule) => `${egressMatch(rule)} ${verdict}`);
  const refuse = `goto ${refuseName(plan)}`;
  // A drop costs less than an answer, and a client that tries again succeeds once a connection has ended.
  const count = (match: string): string[] =>
    limits?.open === undefined
      ? []
      : [`add @connections { ${match} ct count over ${limits.open} } counter name ${excessCounter(plan)} drop`];
  return [
    `add counter ${table} ${refusedCounter(plan)}`,
    `add counter ${table} ${floodedCounter(plan)}`,
    `add counter ${table} ${excessCounter(plan)}`,
    ...chain(refuseName(plan), undefined, [
      `counter name ${refusedCounter(plan)}`,
      "meta l4proto tcp reject with tcp reset",
      "reject with icmpx type admin-prohibited",
    ]),
    ...chain(limitName(plan), undefined, [...floodRules(plan, limits?.connections), ...count("iifname")]),
    ...chain(arriveName(plan), undefined, count("oifname")),
    ...chain(hostName(plan), undefined, [
      ...place.open.map((match) => `${match} return`),
      ...lines(plan.hostAccess ?? [], "return"),
      refuse,
    ]),
    ...chain(judgeName(plan), undefined, [
      limitJump(plan),
      ...place.toHost.map((match) => `${match} jump ${hostName(plan)}`),
      ...place.refused.map((match) => `${match} ${refuse}`),
      ...lines(floorOf(plan), refuse),
      ...lines(egress.deny, refuse),
      ...lines(egress.allow, "accept"),
      ...(egress.default === "deny" ? [refuse] : []),
    ]),
  ];
}

/** The first line lets a removal name the chains whether or not they exist. */
export const egressNames = (plan: NetworkPlan): string[] =>
  names.map((nameOf) => `add chain ${tableOf(plan)} ${nameOf(plan)}`);

export function egressRemoval(plan: NetworkPlan): string[] {
  const table = tableOf(plan);
  return [
    // In this order: the first refers to others.
    ...names.flatMap((nameOf) => removeChain(table, nameOf(plan))),
    ...[refusedCounter, floodedCounter, excessCounter].flatMap((nameOf) => removeCounter(table, nameOf(plan))),
  ];
}
