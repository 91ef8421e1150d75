// Compares the rules that a table must have with those that it has, by their number in each chain and by the elements of its sets.
// nftables writes rules in a form of its own, so their texts cannot be compared.
import * as v from "valibot";
import { ask, type Place } from "../host/tools.ts";

export interface RuleCounts {
  /** The number of rules in each chain, by "family table name". */
  readonly chains: ReadonlyMap<string, number>;
  /** The number of elements in each set or map, by "family table name". */
  readonly sets: ReadonlyMap<string, number>;
}

const increase = (counts: Map<string, number>, name: string, by: number): unknown =>
  counts.set(name, (counts.get(name) ?? 0) + by);

/** The numbers that these commands for `nft -f` lead to, if each element is named once. */
export function countsOf(lines: readonly string[]): RuleCounts {
  const chains = new Map<string, number>();
  const sets = new Map<string, number>();
  for (const line of new Set(lines.filter((text) => !text.startsWith("add rule")))) {
    const [, what, name] = /^add (chain|element|set|map) (\w+ \w+ \w+)/.exec(line) ?? [];
    if (name === undefined) continue;
    if (what === "chain") increase(chains, name, 0);
    else increase(sets, name, what === "element" ? 1 : 0);
  }
  for (const line of lines) {
    const [, chain] = /^add rule (\w+ \w+ \w+) /.exec(line) ?? [];
    if (chain !== undefined) increase(chains, chain, 1);
  }
  return { chains, sets };
}

const owner = { family: v.string(), table: v.string() };
const named = v.looseObject({ ...owner, name: v.string(), elem: v.optional(v.array(v.unknown()), []) });
const tableSchema = v.object({
  nftables: v.array(
    v.looseObject({
      chain: v.optional(v.looseObject({ ...owner, name: v.string() })),
      rule: v.optional(v.looseObject({ ...owner, chain: v.string() })),
      set: v.optional(named),
      map: v.optional(named),
    }),
  ),
});

/** The tables of this name, of both families; a table that is missing has nothing. Fails with CommandError. */
export async function readCounts(place: Place, names: readonly string[]): Promise<RuleCounts> {
  const chains = new Map<string, number>();
  const sets = new Map<string, number>();
  const present = await ask({ ...place, argv: ["nft", "list", "tables"] });
  const tables = names
    .flatMap((name) => [`inet ${name}`, `netdev ${name}`])
    .filter((table) => present.split("\n").includes(`table ${table}`));
  for (const table of tables) {
    const [family = "", name = ""] = table.split(" ");
    const text = await ask({ ...place, argv: ["nft", "-j", "list", "table", family, name] });
    for (const { chain, rule, set, map } of v.parse(tableSchema, JSON.parse(text)).nftables) {
      if (chain !== undefined) increase(chains, `${table} ${chain.name}`, 0);
      if (rule !== undefined) increase(chains, `${table} ${rule.chain}`, 1);
      for (const item of [set, map]) {
        if (item !== undefined) increase(sets, `${table} ${item.name}`, item.elem.length);
      }
    }
  }
  return { chains, sets };
}

/**
 * The chains, sets and maps that are not as they must be. A set may have more elements than it must: those of VMs that start now.
 */
export function differences(wanted: RuleCounts, there: RuleCounts): string[] {
  const chains = [...wanted.chains].filter(([name, count]) => there.chains.get(name) !== count);
  const sets = [...wanted.sets].filter(([name, count]) => (there.sets.get(name) ?? -1) < count);
  return [...chains, ...sets].map(([name]) => name);
}
