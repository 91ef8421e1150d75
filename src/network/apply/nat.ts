// Opens and detaches a VM in the default network: a TAP in the host's namespace with a /30 of its own. The host translates the
// VM's address on the way out, and forwards its published ports on the way in.
import { writeFile } from "node:fs/promises";
import type { Forwarding } from "../firewalls/forward-chain.ts";
import { allDone, runIp, runNft } from "../host/tools.ts";
import { type NatPlan, type PlanRecords, plansOf } from "../plan/network-plan.ts";
import { type NatHost, natRemoval, natRules } from "../rules/nat.ts";
import { removeTables } from "../rules/nft.ts";
import { addRoutingRules, guestRoutes, guestRoutesRemoval, type RoutingRules } from "./guest-routes.ts";

interface OpenOptions {
  readonly plan: NatPlan;
  readonly host: NatHost;
  readonly forwarding: Forwarding;
  readonly routing: RoutingRules;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Adds the rules before it brings the TAP up. Must be called in a turn of the host's namespace. Fails with NetworkSetupError;
 * the caller then detaches.
 */
export async function openNat({ plan, host, forwarding, routing, signal }: OpenOptions): Promise<void> {
  await allDone([
    forwarding.open({ uplinks: host.uplinks, signal }),
    routing.open({ signal }),
    runNft({ namespacePath: undefined, signal, lines: natRules([plan], host) }),
    setSwitches({ ...natSwitches(plan), "net/ipv4/ip_forward": "1" }),
    // The kernel may not have IPv6.
    writeFile(`/proc/sys/net/ipv6/conf/${plan.tap}/disable_ipv6`, "1").catch(() => undefined),
  ]);
  await linkNat({ plan, signal });
}

/** Idempotent. The rules, the guard and the switches must be there. */
async function linkNat({ plan, signal }: Pick<OpenOptions, "plan" | "signal">): Promise<void> {
  const { tap, guestMac, gateway, address } = plan;
  const lines = [
    // No route to the guest comes with it.
    `address replace ${gateway}/32 dev ${tap}`,
    `link set dev ${tap} up`,
    // The host never asks for the guest's MAC, so no other VM can answer.
    `neighbour replace ${address} lladdr ${guestMac} dev ${tap} nud permanent`,
    ...guestRoutes(plan),
  ];
  await runIp({ namespacePath: undefined, signal, lines });
}

/** Restores switches, routing rules and routes of a VM whose TAP is up. Fails with NetworkSetupError. */
export async function relinkNat(options: Pick<OpenOptions, "plan" | "signal">): Promise<void> {
  await setSwitches(natSwitches(options.plan));
  await addRoutingRules(options);
  await linkNat(options);
}

/**
 * Idempotent. The last VM removes the whole table. Must be called in a turn of the host's namespace. Fails with
 * NetworkSetupError.
 */
export async function detachNat(options: {
  plan: NatPlan;
  records: PlanRecords;
  forwarding: Forwarding;
  routing: RoutingRules;
}): Promise<void> {
  const { plan, records, forwarding, routing } = options;
  const place = { namespacePath: undefined };
  await runIp({ ...place, lines: [`link delete ${plan.tap}`, ...guestRoutesRemoval(plan)], force: true });
  const others = plansOf("nat", await records.plans()).some(({ tap }) => tap !== plan.tap);
  await runNft({ ...place, lines: others ? natRemoval(plan) : removeTables(plan.table) });
  if (others) return;
  await forwarding.close({});
  await routing.close();
}

/** The driver runs in the namespace, so it writes the files itself. By their path below /proc/sys. */
export function natSwitches(plan: NatPlan): Readonly<Record<string, string>> {
  const conf = `net/ipv4/conf/${plan.tap}`;
  const fromLoopback = plan.ports.some(({ hostIp }) => hostIp === "" || hostIp.startsWith("127."));
  return {
    // A packet without the rules' marks has no way back to the guest, so the kernel drops it.
    [`${conf}/rp_filter`]: "1",
    [`${conf}/src_valid_mark`]: "1",
    // The host's own loopback may connect to a published port. The guard refuses the other direction.
    [`${conf}/route_localnet`]: fromLoopback ? "1" : "0",
    [`${conf}/send_redirects`]: "0",
  };
}

async function setSwitches(values: Readonly<Record<string, string>>): Promise<void> {
  for (const [path, value] of Object.entries(values)) await writeFile(`/proc/sys/${path}`, value);
}
