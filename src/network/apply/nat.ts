// Opens and detaches a VM in the default network: a TAP in the host's namespace with a /30 of its own. The host translates the
// VM's address on the way out, and forwards its published ports on the way in.
import { writeFile } from "node:fs/promises";
import type { Forwarding } from "../firewalls/forward-chain.ts";
import { allDone, runIp, runNft } from "../host/tools.ts";
import { type NatPlan, type PlanRecords, plansOf } from "../plan/network-plan.ts";
import { type NatHost, natRemoval, natRules } from "../rules/nat.ts";
import { removeTables } from "../rules/nft.ts";

/**
 * Adds the rules before it brings the TAP up. Must be called in a turn of the host's namespace. Fails with NetworkSetupError;
 * the caller then detaches.
 */
export async function openNat(options: {
  plan: NatPlan;
  host: NatHost;
  forwarding: Forwarding;
  signal?: AbortSignal | undefined;
}): Promise<void> {
  const { plan, host, forwarding, signal } = options;
  const place = { namespacePath: undefined, signal };
  await allDone([
    forwarding.open({ signal }),
    setNatSwitches(plan),
    runNft({ ...place, lines: natRules([plan], host) }),
  ]);
  await runIp({ ...place, lines: natLinks(plan) });
}

/**
 * Idempotent. The last VM removes the whole table. Must be called in a turn of the host's namespace. Fails with
 * NetworkSetupError.
 */
export async function detachNat(options: {
  plan: NatPlan;
  records: PlanRecords;
  forwarding: Forwarding;
}): Promise<void> {
  const { plan, records, forwarding } = options;
  const place = { namespacePath: undefined };
  await runIp({ ...place, lines: [`link delete ${plan.tap}`], force: true });
  const others = plansOf("nat", await records.plans()).some(({ tap }) => tap !== plan.tap);
  await runNft({ ...place, lines: others ? natRemoval(plan) : removeTables(plan.table) });
  if (!others) await forwarding.close({});
}

function natLinks(plan: NatPlan): string[] {
  const { tap, guestMac, gateway, address } = plan;
  return [
    `address add ${gateway}/30 dev ${tap}`,
    `link set dev ${tap} up`,
    // The host never asks for the guest's MAC, so no other VM can answer.
    `neighbour replace ${address} lladdr ${guestMac} dev ${tap} nud permanent`,
  ];
}

/** The driver runs in the namespace, so it writes the files itself. */
async function setNatSwitches(plan: NatPlan): Promise<void> {
  const four = "/proc/sys/net/ipv4";
  // The host's own loopback may connect to a published port. The guard refuses the other direction.
  await writeFile(`${four}/conf/${plan.tap}/route_localnet`, "1");
  await writeFile(`${four}/conf/${plan.tap}/send_redirects`, "0");
  await writeFile(`${four}/ip_forward`, "1");
  // The kernel may not have IPv6.
  await writeFile(`/proc/sys/net/ipv6/conf/${plan.tap}/disable_ipv6`, "1").catch(() => undefined);
}
