// Opens and detaches a VM in an allocation's network namespace (Nomad's "bridge" and "cni/NAME"): routes, rules and switches.

import { isNamespace } from "../host/read-namespace.ts";
import { allDone, type Family, runIp, runNft, setSwitches } from "../host/tools.ts";
import { type NamespacePlan, neighboursOf, type PlanRecords } from "../plan/network-plan.ts";
import {
  gatewayIpv6,
  markOf,
  type NamespaceHost,
  namespaceGuard,
  namespacePolicy,
  namespaceRemoval,
  routingTableOf,
} from "../rules/namespace.ts";

/** The kernel must look at a packet's mark before it looks for its own addresses. */
const localRulePriority = 32;
const markRulePriority = 10;

/**
 * Adds the rules before it brings the TAP up. Must be called in a turn of the namespace. Fails with NetworkSetupError; the
 * caller then detaches.
 */
export async function openNamespace(options: {
  plan: NamespacePlan;
  records: PlanRecords;
  host: NamespaceHost;
  signal?: AbortSignal | undefined;
}): Promise<void> {
  const { plan, records, host, signal } = options;
  const place = { namespacePath: plan.path, signal };
  const neighbours = await neighboursOf(plan, records);
  await allDone([
    // Every VM does this, not only the first: two that start together each see the other's record.
    ...familiesOf(plan).map((family) => runIp({ ...place, family, lines: localRuleLines, force: true })),
    setSwitches({ ...place, values: switches(plan) }),
    runNft({ ...place, lines: [...namespacePolicy([...neighbours, plan], host), ...namespaceGuard(plan)] }),
  ]);
  const steer = familiesOf(plan).map((family) => runIp({ ...place, family, lines: [`rule add ${markRule(plan)}`] }));
  await allDone([runIp({ ...place, lines: links(plan) }), ...steer]);
}

/**
 * Idempotent. The kernel removes everything together with a namespace. Must be called in a turn of the namespace. Fails with
 * NetworkSetupError.
 */
export async function detachNamespace(options: {
  plan: NamespacePlan;
  records: PlanRecords;
  host: NamespaceHost;
}): Promise<void> {
  const { plan, records, host } = options;
  const place = { namespacePath: plan.path };
  if (!(await isNamespace(plan.path))) return;
  const neighbours = await neighboursOf(plan, records);
  try {
    await runIp({ ...place, lines: [`link delete ${plan.tap}`], force: true });
    const steer = familiesOf(plan).map((family) =>
      runIp({ ...place, family, lines: [`rule delete ${markRule(plan)}`], force: true }),
    );
    await allDone(steer);
    await runNft({ ...place, lines: namespaceRemoval(plan, neighbours, host) });
  } catch (error) {
    if (await isNamespace(plan.path)) throw error;
  }
}

/** An error means that an earlier VM has done this. */
const localRuleLines = [`rule add pref ${localRulePriority} lookup local`, "rule delete pref 0 lookup local"];

function links(plan: NamespacePlan): string[] {
  const { tap, guestMac, gateway, address } = plan;
  const table = routingTableOf(plan);
  const shared = [plan.ipv4, plan.ipv6].filter((item) => item !== undefined);
  return [
    ...(plan.ipv6 === undefined ? [] : [`link set dev ${tap} addrgenmode none`]),
    `address add ${gateway}/30 dev ${tap}`,
    `link set dev ${tap} up`,
    `neighbour replace ${address} lladdr ${guestMac} dev ${tap} nud permanent`,
    ...(plan.ipv6 === undefined ? [] : [`address add ${gatewayIpv6}/64 dev ${tap} nodad`]),
    ...shared.flatMap((item) => [
      `neighbour replace ${item.address} lladdr ${guestMac} dev ${tap} nud permanent`,
      `route replace ${item.address} dev ${tap} table ${table}`,
    ]),
  ];
}

const familiesOf = (plan: NamespacePlan): Family[] => (plan.ipv6 === undefined ? ["-4"] : ["-4", "-6"]);

const markRule = (plan: NamespacePlan): string =>
  `pref ${markRulePriority} fwmark ${markOf(plan)} lookup ${routingTableOf(plan)}`;

function switches(plan: NamespacePlan): Record<string, string> {
  const four = "net/ipv4";
  const six = "net/ipv6/conf";
  return {
    [`${four}/ip_forward`]: "1",
    // The VM's packets come from the namespace's own address.
    [`${four}/conf/all/rp_filter`]: "0",
    [`${four}/conf/${plan.tap}/rp_filter`]: "0",
    [`${four}/conf/${plan.tap}/accept_local`]: "1",
    [`${four}/conf/${plan.tap}/route_localnet`]: "1",
    [`${four}/conf/${plan.tap}/send_redirects`]: "0",
    ...(plan.ipv6 === undefined
      ? {}
      : {
          // A namespace that forwards ignores router advertisements otherwise, and the addresses and routes from them expire.
          [`${six}/${plan.device}/accept_ra`]: "2",
          [`${six}/all/forwarding`]: "1",
        }),
  };
}
