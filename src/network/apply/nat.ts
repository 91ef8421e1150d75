// The default network: a VM's TAP in the host's namespace with a /30 of its own, translated to the host's addresses on the way
// out, reached through the host's ports on the way in. All VMs share one table of rules, in which a VM is an element of sets
// and maps and a chain of its own; a packet costs the same however many VMs there are.
import { writeFile } from "node:fs/promises";
import { allowForwarding, closeForwarding } from "../firewalls/forward-chain.ts";
import type { NatPlan } from "../plan/network-plan.ts";
import { type NatHost, natRemoval, natRules } from "../rules/nat.ts";
import { removeTables } from "../rules/nft.ts";
import { allDone, inTurn, runIp, runNft } from "./tools.ts";

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
      runNft({ ...place, lines: natRules([plan], options.host) }),
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
  await inTurn(undefined, async () => {
    await runIp({ namespacePath: undefined, signal, lines: [`link delete ${plan.tap}`], force: true });
    const others = await options.others();
    await runNft({ namespacePath: undefined, signal, lines: others ? natRemoval(plan) : removeTables(plan.table) });
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
