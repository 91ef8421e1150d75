// Checks that imports in src/ go downwards only: nomad → driver → machine → (images, boot, network, vmm, guest) → system. Folders
// of one layer don't know each other. Inside a layer its sub-folders have an order too, and its rooms (sub-folders, and the files
// beside them) import each other in no circle. Type imports count. Usage: node scripts/check-layers.ts
import assert from "node:assert/strict";
import { globSync, readFileSync } from "node:fs";
import { join, posix } from "node:path";

/** From top to bottom. `main`, `plugin` and the like (files directly in src/) stand above all; `version.ts` below all. */
const layers: readonly (readonly string[])[] = [
  ["cli"],
  ["nomad"],
  ["driver"],
  ["machine"],
  ["images", "boot", "network", "vmm", "guest"],
  ["system"],
  ["gen", "version.ts"],
];

/** Sub-folders from top to bottom. Files beside them may stand anywhere, as long as no circle comes of it. */
const inside: Readonly<Record<string, readonly (readonly string[])[]>> = {
  driver: [["start"], ["task", "host"], ["config"]],
  machine: [["create"], ["records"]],
  network: [["keep"], ["apply"], ["firewalls", "inspect", "rules"], ["plan"], ["host"]],
  images: [["store"], ["registry", "merge"], ["tar"]],
  vmm: [["firecracker", "qemu"]],
  guest: [["exec"]],
};

/** Paths import paths, all relative to the project. */
type Graph = ReadonlyMap<string, ReadonlySet<string>>;

const importPattern = /(?:\bfrom|\bimport)\s*\(?\s*"(\.{1,2}\/[^"]+)"/g;

function importsOf(file: string, text: string): Set<string> {
  return new Set(
    [...text.matchAll(importPattern)].map(([, specifier = ""]) => posix.join(posix.dirname(file), specifier)),
  );
}

/** Undefined for files directly in src/: they may import everything. */
function depthOf(path: string): number | undefined {
  if (path === "package.json") return layers.length;
  const [top, name = "", ...below] = path.split("/");
  const depth = layers.findIndex((names) => names.includes(name));
  if (top === "src" && depth !== -1) return depth;
  if (top === "src" && below.length === 0) return undefined;
  throw new Error(`${path} has no layer`);
}

const layerOf = (path: string): string => path.split("/")[1] ?? "";
const isTest = (path: string): boolean => path.endsWith(".test.ts");
/** The sub-folder or the file, of "src/layer/room/...". */
const roomOf = (path: string): string => path.split("/")[2] ?? "";

function* upwardImports(files: Graph): Generator<string> {
  for (const [file, targets] of files) {
    for (const target of targets) {
      if (isTest(file) && target.startsWith("test/")) continue;
      if (isUpward(file, target)) yield `${file} imports ${target}, which is not below it`;
    }
  }
}

function isUpward(file: string, target: string): boolean {
  const own = depthOf(file);
  if (own === undefined) return false;
  if (layerOf(file) !== layerOf(target)) {
    const depth = depthOf(target);
    return depth === undefined || depth <= own;
  }
  if (isTest(file) || roomOf(file) === roomOf(target)) return false;
  const order = inside[layerOf(file)] ?? [];
  const [from, to] = [file, target].map((path) => order.findIndex((rooms) => rooms.includes(roomOf(path))));
  return from !== -1 && to !== -1 && (to ?? 0) <= (from ?? 0);
}

/** A layer's rooms and what they import of it. Tests may import anything of their layer. */
function roomsOf(layer: string, files: Graph): Graph {
  const rooms = new Map<string, Set<string>>();
  for (const [file, targets] of files) {
    if (layerOf(file) !== layer || isTest(file)) continue;
    const known = rooms.get(roomOf(file)) ?? new Set();
    rooms.set(roomOf(file), known);
    for (const target of targets) {
      if (layerOf(target) === layer && roomOf(target) !== roomOf(file)) known.add(roomOf(target));
    }
  }
  return rooms;
}

/** The first circle found, as the way along it. */
function circleIn(graph: Graph): string[] | undefined {
  const done = new Set<string>();
  const visit = (name: string, way: readonly string[]): string[] | undefined => {
    if (way.includes(name)) return [...way.slice(way.indexOf(name)), name];
    if (done.has(name)) return undefined;
    for (const target of graph.get(name) ?? []) {
      const circle = visit(target, [...way, name]);
      if (circle !== undefined) return circle;
    }
    done.add(name);
    return undefined;
  };
  for (const name of graph.keys()) {
    const circle = visit(name, []);
    if (circle !== undefined) return circle;
  }
  return undefined;
}

/** How many rooms stand above one another at most. The graph has no circle. */
function floorsOf(graph: Graph): number {
  const heights = new Map<string, number>();
  const height = (name: string): number => {
    const known = heights.get(name) ?? 1 + Math.max(0, ...[...(graph.get(name) ?? [])].map(height));
    heights.set(name, known);
    return known;
  };
  return Math.max(...[...graph.keys()].map(height));
}

/** The sub-folders that the order above does not name: a new one needs its place. */
function unplaced(layer: string, files: Graph): string[] {
  const placed = new Set((inside[layer] ?? []).flat());
  const folders = [...roomsOf(layer, files).keys()].filter((room) => !room.endsWith(".ts"));
  return folders.filter((folder) => !placed.has(folder));
}

function faultsOf(layer: string, files: Graph): string[] {
  const circle = circleIn(roomsOf(layer, files));
  return [
    ...unplaced(layer, files).map((folder) => `src/${layer}/${folder} has no place in the order of ${layer}'s folders`),
    ...(circle === undefined ? [] : [`circle in src/${layer}: ${circle.join(" → ")}`]),
  ];
}

/** The check itself must find what it is for. */
function checkTheCheck(): void {
  const files = new Map(
    Object.entries({
      "src/driver/errors.ts": 'import "../system/error.ts";',
      "src/driver/config/a.ts": 'import { b } from "../start/b.ts";\nimport "../../nomad/c.ts";',
      "src/driver/start/b.ts": 'import type { A } from "../config/a.ts";\nimport "../errors.ts";',
      "src/driver/start/b.test.ts": 'import "../../../test/fakes/d.ts";',
      "src/driver/new/e.ts": "",
    }).map(([file, text]) => [file, importsOf(file, text)]),
  );
  assert.deepEqual(
    [...upwardImports(files)],
    [
      "src/driver/config/a.ts imports src/driver/start/b.ts, which is not below it",
      "src/driver/config/a.ts imports src/nomad/c.ts, which is not below it",
    ],
  );
  assert.deepEqual(faultsOf("driver", files), [
    "src/driver/new has no place in the order of driver's folders",
    "circle in src/driver: config → start → config",
  ]);
  assert.equal(floorsOf(roomsOf("driver", new Map([...files].slice(0, 1)))), 1);
}

checkTheCheck();
const root = join(import.meta.dirname, "..");
const names = globSync("src/**/*.ts", { cwd: root }).filter((file) => !file.startsWith("src/gen/"));
const files = new Map(names.map((file) => [file, importsOf(file, readFileSync(join(root, file), "utf8"))]));
const checked = layers.flat().filter((layer) => layer !== "gen" && layer !== "version.ts");
const faults = [...upwardImports(files), ...checked.flatMap((layer) => faultsOf(layer, files))];
for (const line of faults) console.error(line);
if (faults.length > 0) process.exitCode = 1;
else {
  for (const layer of checked) {
    const rooms = roomsOf(layer, files);
    console.log(`${layer}: ${rooms.size} rooms on ${floorsOf(rooms)} floors`);
  }
}
console.log(`layers: ${files.size} files, ${faults.length} faults`);
