// Restores rules that other software flushed while VMs run, all rules of a namespace at once.
import * as v from "valibot";
import { isNamespace, readLinks } from "../host/read-namespace.ts";
import { ask, type Place, runNft } from "../host/tools.ts";
import { isTapName } from "../plan/address-pool.ts";
import { type NetworkPlan, namespacePathOf, type PlanRecords, plansOf } from "../plan/network-plan.ts";
import { egressChain } from "../rules/egress.ts";
import { guardChain } from "../rules/guard.ts";
import { namespaceRules } from "../rules/namespace.ts";
import { natRules } from "../rules/nat.ts";

/** Must be called in a turn of the namespace. Returns the plans whose rules were missing. Fails with NetworkSetupError or CommandError. */
export async function restoreRules(options: {
  /** A namespace's file; undefined: the driver's own namespace. */
  path: string | undefined;
  records: PlanRecords;
  allowMetadata: boolean;
  signal?: AbortSignal | undefined;
}): Promise<NetworkPlan[]> {
  const { path, records, signal } = options;
  if (path !== undefined && !(await isNamespace(path))) return [];
  const place = { namespacePath: path, signal };
  // Read in this turn: a VM that starts or ends takes the same turns to change its rules.
  const plans = (await records.plans()).filter((plan) => namespacePathOf(plan) === path);
  const chains = await readChains(place);
  // Asked of each VM: after a flush, another VM's start or end makes the tables again, with its own rules only.
  const isGone = (plan: NetworkPlan): boolean =>
    [guardChain(plan), egressChain(plan)].some((chain) => !chains.has(chain));
  if (!plans.some(isGone)) return [];
  // If the interface is down or missing, the VM is about to get its rules, or is being removed.
  const taps = await openTaps(place);
  const there = plans.filter(({ tap }) => taps.has(tap));
  const gone = there.filter(isGone);
  if (gone.length === 0) return [];
  await runNft({
    ...place,
    // The VMs of a group share one set of rules.
    lines: [...natRules(plansOf("nat", gone), options), ...namespaceRules(plansOf("namespace", there))],
  });
  return gone;
}

const chainsSchema = v.object({
  nftables: v.array(
    v.looseObject({ chain: v.optional(v.object({ family: v.string(), table: v.string(), name: v.string() })) }),
  ),
});

/** Each chain as "family table name". */
async function readChains(place: Place): Promise<Set<string>> {
  const { nftables } = v.parse(
    chainsSchema,
    JSON.parse(await ask({ ...place, argv: ["nft", "-j", "list", "chains"] })),
  );
  return new Set(
    nftables.flatMap(({ chain }) => (chain === undefined ? [] : `${chain.family} ${chain.table} ${chain.name}`)),
  );
}

async function openTaps(place: Place): Promise<Set<string>> {
  const links = await readLinks({ ...place, signal: place.signal });
  return new Set(links.flatMap(({ ifname, flags }) => (isTapName(ifname) && flags.includes("UP") ? [ifname] : [])));
}
