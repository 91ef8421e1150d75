// The chains that judge each connection which a VM begins, by its egress policy.
import type { EgressRule } from "../plan/egress-policy.ts";
import type { NetworkPlan } from "../plan/network-plan.ts";
import { floodedCounter, floodRules } from "./guard.ts";
import { removeChain, removeCounter, replacedChains, type Table } from "./nft.ts";

export const refusedCounter = (plan: NetworkPlan): string => `refused_${plan.tap}`;
const judgeName = (plan: NetworkPlan): string => `egress_${plan.tap}`;
const refuseName = (plan: NetworkPlan): string => `refuse_${plan.tap}`;

const tableOf = (plan: NetworkPlan): Table => `inet ${plan.table}`;

/** Table and name. */
export const egressChain = (plan: NetworkPlan): string => `${tableOf(plan)} ${judgeName(plan)}`;
export const egressJump = (plan: NetworkPlan): string => `jump ${judgeName(plan)}`;

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

/** `refused`: matches that are refused before the policy is asked. */
export function egressChains(plan: NetworkPlan, refused: readonly string[]): string[] {
  const { egress } = plan;
  const table = tableOf(plan);
  const chain = replacedChains(table);
  const lines = (rules: readonly EgressRule[], verdict: string): string[] =>
    rules.map((rule) => `${egressMatch(rule)} ${verdict}`);
  const refuse = `goto ${refuseName(plan)}`;
  return [
    `add counter ${table} ${refusedCounter(plan)}`,
    `add counter ${table} ${floodedCounter(plan)}`,
    ...chain(refuseName(plan), undefined, [
      `counter name ${refusedCounter(plan)}`,
      "meta l4proto tcp reject with tcp reset",
      "reject with icmpx type admin-prohibited",
    ]),
    ...chain(judgeName(plan), undefined, [
      ...floodRules(plan, plan.limits?.connections),
      ...refused.map((match) => `${match} ${refuse}`),
      ...lines(egress.floor, refuse),
      ...lines(egress.deny, refuse),
      ...lines(egress.allow, "accept"),
      ...(egress.default === "deny" ? [refuse] : []),
    ]),
  ];
}

export function egressRemoval(plan: NetworkPlan): string[] {
  const table = tableOf(plan);
  return [
    // In this order: the first refers to the second.
    ...removeChain(table, judgeName(plan)),
    ...removeChain(table, refuseName(plan)),
    ...removeCounter(table, refusedCounter(plan)),
    ...removeCounter(table, floodedCounter(plan)),
  ];
}
