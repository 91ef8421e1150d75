// The routes to guests of the default network. They stand in a table that only marked packets see (src/network/rules/nat.ts sets
// the marks), so nothing reaches a guest, and a guest reaches nothing, once the rules are gone.
import * as v from "valibot";
import { NetworkSetupError } from "../errors.ts";
import { ask, runIp } from "../host/tools.ts";
import { readTaps } from "../plan/address-pool.ts";
import type { NatPlan } from "../plan/network-plan.ts";
import { admittedMark } from "../rules/nat.ts";

/** With a route to each guest's TAP. */
const guestsTable = 19_268;
/**
 * For all other packets: each guest's address is the host's own. The kernel drops a packet that comes from such an address,
 * whatever its rp_filter is. The host's own connections to a guest begin with such a route, until the rules mark their packets.
 */
const fallbackTable = 19_269;
const mark = `0x${admittedMark.toString(16)}`;

/** systemd-networkd removes rules of others at its start, except the kernel's. */
const routingRules = [
  { pref: 70, line: `pref 70 fwmark ${mark}/${mark} lookup ${guestsTable} protocol kernel` },
  { pref: 71, line: `pref 71 lookup ${fallbackTable} protocol kernel` },
] as const;

interface Options {
  readonly signal?: AbortSignal | undefined;
}

const rulesSchema = v.array(v.looseObject({ priority: v.number(), table: v.optional(v.string()) }));
const tables = new Set([guestsTable, fallbackTable].map(String));

/** Fails with CommandError. */
async function missingRules(options: Options): Promise<string[]> {
  const text = await ask({ ...options, namespacePath: undefined, argv: ["ip", "-4", "-j", "-N", "rule", "show"] });
  const there = v
    .parse(rulesSchema, JSON.parse(text))
    .flatMap(({ priority, table }) => (table !== undefined && tables.has(table) ? priority : []));
  return routingRules.flatMap(({ pref, line }) => (there.includes(pref) ? [] : line));
}

/** Idempotent. Fails with NetworkSetupError. */
export async function addRoutingRules(options: Options): Promise<void> {
  try {
    const missing = await missingRules(options);
    if (missing.length === 0) return;
    // Another driver may add them at the same time.
    const lines = missing.map((line) => `rule add ${line}`);
    await runIp({ ...options, namespacePath: undefined, family: "-4", lines, force: true });
    const left = await missingRules(options);
    if (left.length > 0) throw new Error(`the kernel did not take: ip rule add ${left.join("; ")}`);
  } catch (error) {
    options.signal?.throwIfAborted();
    throw new NetworkSetupError({ step: "adding the routing rules of VMs", cause: error });
  }
}

/** The routing rules, which all drivers on this host share. Each method must be called in a turn of the host's namespace. */
export class RoutingRules {
  /** Spares every VM's start a look. */
  #isOpen = false;

  /** Called when a VM starts. Fails with NetworkSetupError. */
  async open(options: Options): Promise<void> {
    if (this.#isOpen) return;
    await addRoutingRules(options);
    this.#isOpen = true;
  }

  /** Does its work only after the last VM of all drivers on this host. */
  async close(): Promise<void> {
    this.#isOpen = false;
    if ((await readTaps()).size > 0) return;
    const lines = routingRules.map(({ line }) => `rule delete ${line}`);
    await runIp({ namespacePath: undefined, family: "-4", lines, force: true });
  }
}

/** Lines for `ip`. */
export const guestRoutes = ({ tap, address, gateway, mtu }: NatPlan): string[] => [
  `route replace ${address} dev ${tap} src ${gateway} table ${guestsTable}`,
  `route replace local ${address} dev lo src ${gateway} mtu ${mtu} table ${fallbackTable}`,
];

/** Lines for `ip`. The kernel removes the other route together with the TAP. */
export const guestRoutesRemoval = ({ address }: NatPlan): string[] => [
  `route delete local ${address} dev lo table ${fallbackTable}`,
];

const routesSchema = v.array(v.looseObject({ dst: v.string(), dev: v.optional(v.string()) }));

/** The guests whose routes are complete, by their address; empty if a routing rule is missing. Fails with CommandError. */
export async function routedGuests(options: Options): Promise<Map<string, string>> {
  if ((await missingRules(options)).length > 0) return new Map();
  const read = async (table: number): Promise<v.InferOutput<typeof routesSchema>> => {
    const argv = ["ip", "-4", "-j", "route", "show", "table", `${table}`] as const;
    // The kernel makes a table with its first route.
    const text = await ask({ ...options, namespacePath: undefined, argv }).catch(() => "");
    return v.parse(routesSchema, JSON.parse(text === "" ? "[]" : text));
  };
  const [guests, fallback] = await Promise.all([read(guestsTable), read(fallbackTable)]);
  const closed = new Set(fallback.map(({ dst }) => dst));
  return new Map(guests.flatMap(({ dst, dev }) => (dev !== undefined && closed.has(dst) ? [[dst, dev] as const] : [])));
}
