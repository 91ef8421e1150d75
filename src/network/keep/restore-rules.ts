// Restores rules that other software flushed while VMs run, all rules of a namespace at once, and the default network's routes.
import { readFile } from "node:fs/promises";
import { routedGuests } from "../apply/guest-routes.ts";
import { natSwitches, relinkNat } from "../apply/nat.ts";
import { isNamespace, readLinks } from "../host/read-namespace.ts";
import { type Place, runNft } from "../host/tools.ts";
import { isTapName } from "../plan/address-pool.ts";
import { type NatPlan, type NetworkPlan, namespacePathOf, type PlanRecords, plansOf } from "../plan/network-plan.ts";
import { hostElements, hostSets, type NamespaceHost, namespaceRules } from "../rules/namespace.ts";
import { type NatHost, natRules, uplinkElements, uplinksSet } from "../rules/nat.ts";
import { countsOf, differences, readCounts } from "./rule-counts.ts";

export type HostFacts = NatHost & NamespaceHost;

/**
 * Must be called in a turn of the namespace. Returns the plans whose rules or routes were missing. Fails with NetworkSetupError or
 * CommandError.
 */
export async function restoreRules(options: {
  /** A namespace's file; undefined: the driver's own namespace. */
  path: string | undefined;
  records: PlanRecords;
  host: HostFacts;
  /** The host's facts as the rules have them, by the namespace's file. */
  applied: Map<string, string>;
  signal?: AbortSignal | undefined;
}): Promise<NetworkPlan[]> {
  const { path, records, host, applied, signal } = options;
  if (path !== undefined && !(await isNamespace(path))) return [];
  const place = { namespacePath: path, signal };
  // Read in this turn: a VM that starts or ends takes the same turns to change its rules.
  const plans = (await records.plans()).filter((plan) => namespacePathOf(plan) === path);
  // If the interface is down or missing, the VM is about to get its rules, or is being removed.
  const taps = await openTaps(place);
  const there = plans.filter(({ tap }) => taps.has(tap));
  if (there.length === 0) return [];
  const rulesOf = (some: readonly NetworkPlan[]): string[] => [
    ...natRules(plansOf("nat", some), host),
    ...namespaceRules(plansOf("namespace", some), host),
  ];
  const lines = rulesOf(there);
  const present = await readCounts(place, [...new Set(there.map(({ table }) => table))]);
  const facts = JSON.stringify(host);
  const isNew = applied.get(path ?? "") !== facts;
  const different = differences(countsOf(lines), present).filter((name) => !isNew || !isOfHost(name));
  // After a flush, another VM's start or end makes the tables again, with its own rules only.
  const own = there.filter(({ tap }) => different.some((name) => name.includes(tap)));
  const gone = different.length > 0 && own.length === 0 ? there : own;
  // The VMs of a group share one set of rules.
  if (gone.length > 0) await runNft({ ...place, lines: rulesOf(path === undefined ? gone : there) });
  if (isNew) {
    await runNft({ ...place, lines: hostLines(there, host) });
    applied.set(path ?? "", facts);
  }
  const unrouted = await restoreRoutes(plansOf("nat", there), signal);
  return there.filter((plan) => gone.includes(plan) || unrouted.some((other) => other === plan));
}

/** Whether the set, by "family table name", has the elements of `hostLines`. */
const isOfHost = (name: string): boolean => [...hostSets, uplinksSet].some((set) => name.endsWith(` ${set}`));

/** The elements that follow from the host's facts. */
function hostLines(plans: readonly NetworkPlan[], host: HostFacts): string[] {
  const tables = (mode: NetworkPlan["mode"]): string[] => [
    ...new Set(plans.filter((plan) => plan.mode === mode).map(({ table }) => table)),
  ];
  return [
    ...tables("nat").flatMap((table) => uplinkElements(`inet ${table}`, host)),
    ...tables("namespace").flatMap((table) => hostElements(table, host)),
  ];
}

/** Returns the VMs whose routes or switches were not as they must be. */
async function restoreRoutes(plans: readonly NatPlan[], signal: AbortSignal | undefined): Promise<NatPlan[]> {
  if (plans.length === 0) return [];
  const routed = await routedGuests({ signal });
  const unrouted: NatPlan[] = [];
  for (const plan of plans) {
    if (routed.get(plan.address) === plan.tap && (await hasSwitches(plan))) continue;
    await relinkNat({ plan, signal });
    unrouted.push(plan);
  }
  return unrouted;
}

async function hasSwitches(plan: NatPlan): Promise<boolean> {
  for (const [path, value] of Object.entries(natSwitches(plan))) {
    if ((await readFile(`/proc/sys/${path}`, "utf8")).trim() !== value) return false;
  }
  return true;
}

async function openTaps(place: Place): Promise<Set<string>> {
  const links = await readLinks({ ...place, signal: place.signal });
  return new Set(links.flatMap(({ ifname, flags }) => (isTapName(ifname) && flags.includes("UP") ? [ifname] : [])));
}
