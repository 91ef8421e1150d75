// Puts rules back that somebody flushed while VMs run. All of a namespace at once: what can take one table takes them all.
import { isTapName, readTaps } from "./address-pool.ts";
import { isNamespace, namespaceLines } from "./namespace-network.ts";
import { natLines } from "./nat-network.ts";
import type { NamespacePlan, NatPlan, NetworkPlan } from "./network-plan.ts";
import { readLinks } from "./read-namespace.ts";
import { ask, inTurn, type Place, runNft } from "./run-steps.ts";
import type { ReadPlans } from "./vm-network.ts";

export interface RestoreOptions {
  readonly readPlans: ReadPlans;
  readonly allowMetadata: boolean;
  readonly signal?: AbortSignal | undefined;
}

/** Gives the VMs whose rules had gone. Fails with NetworkSetupError or CommandError. */
export async function restoreRules(options: RestoreOptions): Promise<NetworkPlan[]> {
  const plans = await options.readPlans();
  const paths = new Set(plans.map((plan) => (plan.mode === "namespace" ? plan.path : undefined)));
  const restored: NetworkPlan[] = [];
  for (const path of paths) restored.push(...(await inTurn(path, () => restoreIn(path, options))));
  return restored;
}

async function restoreIn(path: string | undefined, options: RestoreOptions): Promise<NetworkPlan[]> {
  if (path !== undefined && !(await isNamespace(path))) return [];
  const place = { namespacePath: path, signal: options.signal };
  // Read in this namespace's turn: a VM that comes or goes is in it too, and changes records and rules together.
  const plans = await options.readPlans();
  const tables = new Set((await ask({ ...place, argv: ["nft", "list", "tables"] })).split("\n"));
  const gone = plans.filter(
    (plan) =>
      (plan.mode === "namespace" ? plan.path : undefined) === path &&
      ["inet", "netdev"].some((family) => !tables.has(`table ${family} ${plan.table}`)),
  );
  if (gone.length === 0) return [];
  // A VM without its interface is about to get it, or has lost it on its way out.
  const taps = path === undefined ? await readTaps() : await tapsIn(place);
  const there = gone.filter(({ tap }) => taps.has(tap));
  const nat = there.filter((plan): plan is NatPlan => plan.mode === "nat");
  const shared = there.filter((plan): plan is NamespacePlan => plan.mode === "namespace");
  if (there.length > 0) {
    await runNft({ ...place, lines: [...natLines(nat, options), ...namespaceLines(shared)] });
  }
  return there;
}

async function tapsIn(place: Place): Promise<Set<string>> {
  return new Set((await readLinks({ ...place, signal: place.signal })).map(({ ifname }) => ifname).filter(isTapName));
}
