// The default network: a VM's TAP in the host's namespace with a /30 of its own, translated to the host's addresses on the way
// out, reached through the host's ports on the way in. All VMs share one table of rules, in which a VM is an element of sets
// and maps and a chain of its own; a packet costs the same however many VMs there are.
import { writeFile } from "node:fs/promises";
import { allowForwarding, closeForwarding } from "../firewalls/forward-chain.ts";
import { egressMatch, metadataNetworks } from "../plan/egress-policy.ts";
import type { NatPlan } from "../plan/network-plan.ts";
import { egressJump, egressRemoval, egressRules, guardRemoval, guardRules } from "../rules/rules.ts";
import { allDone, inTurn, runIp, runNft } from "./tools.ts";

export interface NatHost {
  /** Cloud metadata services may be reached. */
  readonly allowMetadata: boolean;
}

/** Rules first: the TAP that carries nothing until then. Fails with NetworkSetupError; the caller then detaches. */
export async function openNat(options: {
  plan: NatPlan;
  host: NatHost;
  signal?: AbortSignal | undefined;
}): Promise<void> {
  const { plan, signal } = options;
  const place = { namespacePath: undefined, signal };
  await inTurn(undefined, async () => {
    await allDone([
      allowForwarding({ signal }),
      setNatSwitches(plan),
      runNft({ ...place, lines: natLines([plan], options.host) }),
    ]);
    await runIp({ ...place, lines: natLinks(plan) });
  });
}

/** The last VM takes the whole table along. */
export async function detachNat(options: {
  plan: NatPlan;
  others: () => Promise<boolean>;
  signal?: AbortSignal | undefined;
}): Promise<void> {
  const { plan, signal } = options;
  const { table } = plan;
  await inTurn(undefined, async () => {
    await runIp({ namespacePath: undefined, signal, lines: [`link delete ${plan.tap}`], force: true });
    const others = await options.others();
    await runNft({ namespacePath: undefined, signal, lines: others ? natRemoval(plan) : tableRemoval(table) });
    if (!others) await closeForwarding({ signal });
  });
}

function natLinks(plan: NatPlan): string[] {
  const { tap, guestMac, gateway, address } = plan;
  return [
    `address add ${gateway}/30 dev ${tap}`,
    `link set dev ${tap} up`,
    // The host never asks who has the guest's address, so nobody can answer wrongly.
    `neighbour replace ${address} lladdr ${guestMac} dev ${tap} nud permanent`,
  ];
}

/** The driver is in the namespace: no program is needed. */
async function setNatSwitches(plan: NatPlan): Promise<void> {
  const four = "/proc/sys/net/ipv4";
  // Connections of the host's own loopback to a published port; the guard keeps the guest from the other way.
  await writeFile(`${four}/conf/${plan.tap}/route_localnet`, "1");
  await writeFile(`${four}/conf/${plan.tap}/send_redirects`, "0");
  await writeFile(`${four}/ip_forward`, "1");
  // There may be no IPv6 at all.
  await writeFile(`/proc/sys/net/ipv6/conf/${plan.tap}/disable_ipv6`, "1").catch(() => undefined);
}

function sharedSets(table: string): string[] {
  return [
    `add table inet ${table}`,
    `add set inet ${table} taps { type ifname; }`,
    `add set inet ${table} guests { type ipv4_addr; }`,
    `add map inet ${table} egress { type ifname : verdict; }`,
    `add map inet ${table} ports { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }`,
    `add map inet ${table} any_ports { type inet_proto . inet_service : ipv4_addr . inet_service; }`,
  ];
}

/** Written anew with every VM, so that rules which somebody flushed are there again; one transaction, so nobody notices. */
function sharedRules(table: string): string[] {
  const chain = (name: string, hook: string, rules: readonly string[]): string[] => [
    `add chain inet ${table} ${name}${hook === "" ? "" : ` { type ${hook}; policy accept; }`}`,
    `flush chain inet ${table} ${name}`,
    ...rules.map((rule) => `add rule inet ${table} ${name} ${rule}`),
  ];
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
    ...chain("judge", "", ["ct state established,related accept", "ct state invalid drop", "iifname vmap @egress"]),
    ...chain("forward", "filter hook forward priority filter", [
      "iifname @taps jump judge",
      "oifname @taps ct state established,related accept",
      // Only through the host's ports, not by routing to the VM's address.
      "oifname @taps ct status & dnat != dnat drop",
    ]),
    ...chain("input", "filter hook input priority filter", ["iifname @taps jump judge"]),
  ];
}

function portElements(plan: NatPlan): { map: string; element: string }[] {
  return plan.ports.flatMap(({ hostIp, hostPort, guestPort }) =>
    ["tcp", "udp"].map((protocol) => {
      const key = hostIp === "" ? "" : `${hostIp} . `;
      const target = `${plan.address} . ${guestPort}`;
      return {
        map: hostIp === "" ? "any_ports" : "ports",
        element: `${key}${protocol} . ${hostPort} : ${target}`,
      };
    }),
  );
}

function elements(plan: NatPlan): { map: string; element: string }[] {
  return [
    { map: "taps", element: `"${plan.tap}"` },
    { map: "guests", element: plan.address },
    { map: "egress", element: `"${plan.tap}" : ${egressJump(plan)}` },
    ...portElements(plan),
  ];
}

/** All that VMs need, whatever of it is there. Their interfaces must be. */
export function natLines(plans: readonly NatPlan[], host: NatHost): string[] {
  const tables = new Set(plans.map(({ table }) => table));
  return [...[...tables].flatMap(sharedRules), ...plans.flatMap((plan) => natRules(plan, host))];
}

function natRules(plan: NatPlan, host: NatHost): string[] {
  const { table } = plan;
  const first = [
    ...(host.allowMetadata ? [] : metadataNetworks.map(egressMatch)),
    // Other VMs are reached through the host's ports only.
    "oifname @taps ct status & dnat != dnat",
  ];
  return [
    ...guardRules(plan),
    ...egressRules(plan, first),
    ...elements(plan).map(({ map, element }) => `add element inet ${table} ${map} { ${element} }`),
  ];
}

/** Takes one VM's rules away; those of the table's other VMs stay. */
export function natRemoval(plan: NatPlan): string[] {
  const { table } = plan;
  const chain = [`add chain inet ${table} ${egressJump(plan).replace("jump ", "")}`];
  return [
    ...sharedSets(table),
    ...chain,
    ...elements(plan).flatMap(({ map, element }) => [
      `add element inet ${table} ${map} { ${element} }`,
      `delete element inet ${table} ${map} { ${element} }`,
    ]),
    ...egressRemoval(plan),
    ...guardRemoval(plan),
  ];
}

/** Takes the rules of all VMs away. */
export const tableRemoval = (table: string): string[] =>
  ["inet", "netdev"].flatMap((family) => [`add table ${family} ${table}`, `delete table ${family} ${table}`]);
