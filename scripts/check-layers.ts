// Checks that imports in src/ go downwards only: nomad → driver → machine → (images, boot, network, vmm, guest) → system.
// Folders of one layer don't know each other. Usage: node scripts/check-layers.ts
import { globSync, readFileSync } from "node:fs";
import { join, posix, relative } from "node:path";

const root = join(import.meta.dirname, "..");

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

/** Undefined for files directly in src/: they may import everything. */
function depthOf(path: string): number | undefined {
  if (path === "package.json") return layers.length;
  const [top, name = "", ...below] = path.split("/");
  const depth = layers.findIndex((names) => names.includes(name));
  if (top === "src" && depth !== -1) return depth;
  if (top === "src" && below.length === 0) return undefined;
  throw new Error(`${path} has no layer`);
}

const importPattern = /(?:\bfrom|\bimport)\s*\(?\s*"(\.{1,2}\/[^"]+)"/g;

function* upwardImports(file: string): Generator<string> {
  const own = depthOf(file);
  if (own === undefined) return;
  const text = readFileSync(join(root, file), "utf8");
  for (const [, specifier = ""] of text.matchAll(importPattern)) {
    const target = posix.join(posix.dirname(file), specifier);
    if (target.split("/")[1] === file.split("/")[1]) continue;
    if (file.endsWith(".test.ts") && target.startsWith("test/")) continue;
    const depth = depthOf(target);
    if (depth === undefined || depth <= own) yield `${file} imports ${target}, which is not below it`;
  }
}

const files = globSync("src/**/*.ts", { cwd: root }).map((file) => relative(root, join(root, file)));
const wrong = files.filter((file) => !file.startsWith("src/gen/")).flatMap((file) => [...upwardImports(file)]);
for (const line of wrong) console.error(line);
if (wrong.length > 0) process.exitCode = 1;
console.log(`layers: ${files.length} files, ${wrong.length} upward imports`);
