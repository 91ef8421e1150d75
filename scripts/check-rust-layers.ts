// Checks that modules of the Rust crates import downwards only, by the order of their folders, and that no modules import
// each other in a circle. Tests inside a module may import anything. Usage: node scripts/check-rust-layers.ts [ROOT]
import assert from "node:assert/strict";
import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** Top-level modules of a crate, from top to bottom. Those of one layer don't know each other. */
type Layers = readonly (readonly string[])[];
/** A module's path inside `src`, without its ending, and its text. */
type Modules = ReadonlyMap<string, string>;
/** Keys import values. */
type Graph = ReadonlyMap<string, ReadonlySet<string>>;

const crates: Readonly<Record<string, Layers>> = {
  init: [
    ["main"],
    ["host"],
    ["task"],
    ["exec"],
    ["program"],
    ["root"],
    ["machine"],
    ["memory", "network", "logs"],
    ["wire"],
    ["console", "tuning"],
  ],
  shim: [["main"], ["vm"], ["logs", "clock"], ["control", "dial"], ["config", "confine", "log", "tuning", "unlz4"]],
};

function room(path: string): string {
  return path.split("/", 1)[0] ?? path;
}

/** `crate::a::b`, also from groups of one level: `crate::{a::b, c}`. */
function* cratePaths(text: string): Generator<string> {
  for (const [, plain, group] of text.matchAll(/\bcrate::(?:([\w:]+)|\{([^{}]*)\})/g)) {
    if (plain !== undefined) yield plain;
    for (const item of group?.split(",") ?? []) if (item.trim() !== "") yield item.trim();
  }
}

/** The module that a path leads to: the longest part of it that is one. */
function moduleAt(path: string, modules: Modules): string | undefined {
  const names = path.split("::");
  for (let count = names.length; count > 0; count -= 1) {
    const found = names.slice(0, count).join("/");
    for (const name of [found, `${found}/mod`]) if (modules.has(name)) return name;
  }
  return undefined;
}

function imports(path: string, modules: Modules): Set<string> {
  const [text = ""] = (modules.get(path) ?? "").split("#[cfg(test)]\nmod tests");
  // The parent of a folder's mod.rs is the folder above.
  const parent = path.split("/").slice(0, path.endsWith("/mod") ? -2 : -1);
  // The modules of main are those at the top.
  const local = path === "main" ? [...text.matchAll(/^use (\w[\w:]*)/gm)].map(([, name = ""]) => name) : [];
  const beside = [...text.matchAll(/\bsuper::([\w:]+)/g)].map(([, name = ""]) => [...parent, name].join("::"));
  const found = [...cratePaths(text), ...local, ...beside].flatMap((target) => moduleAt(target, modules) ?? []);
  return new Set(found.filter((target) => target !== path));
}

function graphOf(modules: Modules): Graph {
  return new Map([...modules.keys()].map((path) => [path, imports(path, modules)]));
}

function roomsOf(graph: Graph): Graph {
  const rooms = new Map<string, Set<string>>();
  for (const [path, targets] of graph) {
    const known = rooms.get(room(path)) ?? new Set();
    for (const target of targets) if (room(target) !== room(path)) known.add(room(target));
    rooms.set(room(path), known);
  }
  return rooms;
}

function reach(from: string, graph: Graph): Set<string> {
  const seen = new Set<string>();
  const open = [...(graph.get(from) ?? [])];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    if (seen.has(next)) continue;
    seen.add(next);
    open.push(...(graph.get(next) ?? []));
  }
  return seen;
}

/** Sets of modules each of which imports, by others, itself. */
function circlesOf(graph: Graph): string[][] {
  const reached = new Map([...graph.keys()].map((name) => [name, reach(name, graph)]));
  const circles = new Map<string, string[]>();
  for (const [name, targets] of reached) {
    if (!targets.has(name)) continue;
    const members = [...targets].filter((other) => reached.get(other)?.has(name)).toSorted();
    circles.set(members.join(), members);
  }
  return [...circles.values()];
}

/** How many stand above one another at most, where those of a circle stand on one floor. */
function floorsOf(graph: Graph): number {
  const circle = new Map<string, string>();
  for (const members of circlesOf(graph)) for (const name of members) circle.set(name, members.join());
  const floorOf = (name: string): string => circle.get(name) ?? name;
  const below = new Map<string, Set<string>>();
  for (const [name, targets] of graph) {
    const set = below.get(floorOf(name)) ?? new Set();
    for (const target of targets) if (floorOf(target) !== floorOf(name)) set.add(floorOf(target));
    below.set(floorOf(name), set);
  }
  const heights = new Map<string, number>();
  const height = (name: string): number => {
    const known = heights.get(name) ?? 1 + Math.max(0, ...[...(below.get(name) ?? [])].map(height));
    heights.set(name, known);
    return known;
  };
  return Math.max(...[...below.keys()].map(height));
}

function faultsOf(graph: Graph, layers: Layers): string[] {
  const faults: string[] = [];
  const depthOf = (path: string): number => layers.findIndex((names) => names.includes(room(path)));
  for (const [path, targets] of graph) {
    if (depthOf(path) === -1) faults.push(`${path} has no layer`);
    for (const target of targets) {
      if (room(target) === room(path) || depthOf(target) > depthOf(path)) continue;
      faults.push(`${path} imports ${target}, which is not below it`);
    }
  }
  for (const members of circlesOf(graph)) faults.push(`circle: ${members.join(", ")}`);
  return faults;
}

/** The check itself must find an import that goes upwards, and a circle inside a folder. */
function checkTheCheck(): void {
  const modules = new Map([
    ["main", "use top::door;"],
    ["top/mod", "pub mod door;"],
    ["top/door", "use crate::{base, log};"],
    ["base/mod", "pub mod one;\npub mod two;"],
    ["base/one", "use super::two::Two;\nfn f() { crate::top::door::open(); }"],
    ["base/two", "use crate::base::one;\n#[cfg(test)]\nmod tests { use crate::top; }"],
    ["log", ""],
  ]);
  const graph = graphOf(modules);
  assert.deepEqual(faultsOf(graph, [["main"], ["top"], ["base"], ["log"]]), [
    "base/one imports top/door, which is not below it",
    "circle: base/one, base/two",
  ]);
  assert.equal(floorsOf(roomsOf(graph)), 3);
  assert.deepEqual(circlesOf(roomsOf(graph)), [["base", "top"]]);
}

function read(src: string): Modules {
  const files = globSync("**/*.rs", { cwd: src }).toSorted();
  return new Map(files.map((file) => [file.slice(0, -".rs".length), readFileSync(join(src, file), "utf8")]));
}

checkTheCheck();
const root = process.argv[2] ?? join(import.meta.dirname, "..");
for (const [name, layers] of Object.entries(crates)) {
  const graph = graphOf(read(join(root, "crates", name, "src")));
  const rooms = roomsOf(graph);
  const faults = faultsOf(graph, layers);
  for (const fault of faults) console.error(`crates/${name}/src: ${fault}`);
  if (faults.length > 0) process.exitCode = 1;
  const counts = new Map<string, number>();
  for (const path of graph.keys()) counts.set(room(path), (counts.get(room(path)) ?? 0) + 1);
  console.log(`${name}: ${[...counts].map(([folder, count]) => `${folder} ${count}`).join(", ")}`);
  console.log(
    `${name}: ${graph.size} modules in ${rooms.size} rooms on ${floorsOf(rooms)} floors, ${circlesOf(graph).length} circles`,
  );
}
