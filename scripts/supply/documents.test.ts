import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { refusedLicences } from "./allowed-licences.ts";
import { type CargoMetadata, type Component, cargoComponents, npmComponents } from "./component.ts";
import { billOfMaterials, notices } from "./documents.ts";

const directory = mkdtempSync(join(tmpdir(), "litegix-supply-"));
after(() => rmSync(directory, { recursive: true }));

function write(path: string, content: string): void {
  mkdirSync(join(directory, path, ".."), { recursive: true });
  writeFileSync(join(directory, path), content);
}

const product = { name: "product", version: "1.0.0", licence: "MPL-2.0", sha256: "00" };

const component = (name: string, changed: Partial<Component> = {}): Component => ({
  name,
  version: "1.0.0",
  purl: `pkg:cargo/${name}@1.0.0`,
  licence: "MIT",
  hash: undefined,
  texts: [],
  part: "shim",
  ...changed,
});

test("the crates of a program are those that it links: no macros, and nothing for builds and tests", () => {
  const names = ["program", "linked", "deep", "macro", "of-macro", "for-tests", "for-builds"];
  for (const name of names) write(`crates/${name}/LICENSE-MIT`, `text of ${name}`);
  const deps: Record<string, [string, string | null][]> = {
    program: [
      ["linked", null],
      ["macro", null],
      ["for-tests", "dev"],
      ["for-builds", "build"],
    ],
    linked: [["deep", null]],
    macro: [["of-macro", null]],
  };
  const metadata: CargoMetadata = {
    packages: names.map((name) => ({
      id: name,
      name,
      version: "1.0.0",
      license: "MIT/Apache-2.0",
      source: name === "program" ? null : "registry+x",
      manifest_path: join(directory, `crates/${name}/Cargo.toml`),
      targets: [{ kind: [name === "macro" ? "proc-macro" : "lib"] }],
    })),
    resolve: {
      nodes: names.map((id) => ({
        id,
        deps: (deps[id] ?? []).map(([pkg, kind]) => ({ pkg, dep_kinds: [{ kind }] })),
      })),
    },
  };
  const lock = names
    .map((name) => `name = "${name}"\nversion = "1.0.0"\nsource = "x"\nchecksum = "sum-${name}"\n`)
    .join("\n");
  const found = cargoComponents({ metadata, lock, programs: ["program"], part: "shim" });
  assert.deepEqual(
    found.map(({ purl }) => purl),
    ["pkg:cargo/deep@1.0.0", "pkg:cargo/linked@1.0.0"],
  );
  assert.deepEqual(found[0]?.texts, ["text of deep"]);
  assert.equal(found[0]?.hash?.content, "sum-deep");
  assert.throws(() => cargoComponents({ metadata, lock: "", programs: ["program"], part: "shim" }), /checksum/);
});

test("the packages of a bundle are those whose files it has, as the lock file names them", () => {
  const locked = { version: "2.0.0", license: "MIT", integrity: `sha512-${Buffer.from("digest").toString("base64")}` };
  write(
    "package-lock.json",
    JSON.stringify({ packages: { "": {}, "node_modules/@a/b": locked, "node_modules/c": locked } }),
  );
  write("node_modules/@a/b/package.json", JSON.stringify({ name: "@a/b", version: "2.0.0", license: "MIT" }));
  write("node_modules/@a/b/LICENSE", "text");
  const read = (files: readonly string[]): Component[] => npmComponents({ root: directory, files, part: "bundle" });
  const [only, ...others] = read(["src/main.ts", "node_modules/@a/b/dist/x.js", "node_modules/@a/b/dist/y.js"]);
  assert.deepEqual(others, []);
  assert.deepEqual([only?.purl, only?.texts], ["pkg:npm/%40a/b@2.0.0", ["text"]]);
  assert.equal(only?.hash?.content, Buffer.from("digest").toString("hex"));
  write("node_modules/c/package.json", JSON.stringify({ name: "c", version: "2.0.1", license: "MIT" }));
  assert.throws(() => read(["node_modules/c/x.js"]), /not what package-lock.json names/);
});

test("the bill names a work once, with all parts that have it", () => {
  const components = [
    component("a"),
    component("a", { part: "init" }),
    component("node", { hash: { alg: "SHA-256", content: "11" } }),
  ];
  const bill = billOfMaterials(product, components) as {
    components: { name: string; type: string; properties: object[] }[];
  };
  assert.deepEqual(
    bill.components.map(({ name, type }) => `${type} ${name}`),
    ["library a", "platform node"],
  );
  assert.deepEqual(bill.components[0]?.properties, [{ name: "litegix:part", value: "shim, init" }]);
});

test("the notices have each text once, and say which works bring none", () => {
  const text = notices(product, [
    component("a", { texts: ["T1"] }),
    component("b", { texts: ["T1", "T2"] }),
    component("c"),
  ]);
  assert.equal(text.split("T1").length, 2);
  assert.match(text, /^a 1\.0\.0, b 1\.0\.0$/m);
  assert.match(text, /bring no licence file; .*: c 1\.0\.0$/m);
});

test("a licence that is not on the list is refused by name; the C library's is known", () => {
  const works = [
    component("good"),
    component("bad", { licence: "GPL-3.0-only" }),
    component("glibc", { licence: "LGPL-2.1-or-later" }),
  ];
  assert.deepEqual(refusedLicences(works, new Set(["MIT"])), [
    'bad 1.0.0 has the licence "GPL-3.0-only", which deny.toml does not allow',
  ]);
});
