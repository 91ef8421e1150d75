// Builds dist/litegix-fc-driver: the Rust programs, the bundle, and both in one Node single executable. Beside it: a bill of
// materials (sbom.cdx.json), the notices of others' works (THIRD_PARTY_NOTICES.txt), and all files' checksums (SHA256SUMS).
// Usage: node scripts/build.ts [--assets-only]
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { basename, join } from "node:path";
import { build } from "esbuild";
import { readAllowed, refusedLicences } from "./supply/allowed-licences.ts";
import { cargoMetadata } from "./supply/cargo.ts";
import {
  type Component,
  cargoComponents,
  nodeComponent,
  npmComponents,
  toolchainComponents,
} from "./supply/component.ts";
import { billOfMaterials, notices } from "./supply/documents.ts";
import { cachedVhostDeviceVsock, type VhostDeviceVsock } from "./vhost-device-vsock.ts";

const root = join(import.meta.dirname, "..");
const dist = join(root, "dist");
const assets = join(dist, "assets");
const work = join(dist, "work");
const rustTarget = "x86_64-unknown-linux-gnu";
const cache = process.env["LITEGIX_CACHE"] ?? join(homedir(), ".cache/litegix-fc-driver");

function step<T>(what: string, run: () => T): T {
  const start = performance.now();
  const result = run();
  console.log(`build: ${what} (${((performance.now() - start) / 1000).toFixed(1)} s)`);
  return result;
}

function run(file: string, args: readonly string[], env: Record<string, string> = {}): void {
  execFileSync(file, args, { cwd: root, stdio: ["ignore", "inherit", "inherit"], env: { ...process.env, ...env } });
}

const output = (file: string, args: readonly string[]): string =>
  execFileSync(file, args, { cwd: root, encoding: "utf8" }).trim();

function buildRust(): void {
  run("cargo", [
    "build",
    "--release",
    "--locked",
    "--quiet",
    "--target",
    rustTarget,
    "--target-dir",
    targetDirectory(),
  ]);
  for (const name of ["litegix-init", "litegix-shim"]) {
    copyFileSync(join(targetDirectory(), rustTarget, "release", name), join(assets, name));
  }
}

/** Outside the checkout, so that a clean clone builds in seconds. */
function targetDirectory(): string {
  return process.env["CARGO_TARGET_DIR"] ?? join(cache, "target");
}

function findVhostDeviceVsock(): VhostDeviceVsock {
  const known = cachedVhostDeviceVsock({ cache, rustTarget });
  if (known !== undefined) return known;
  mkdirSync(join(cache, "vhost-device-vsock"), { recursive: true });
  const script = join(import.meta.dirname, "vhost-device-vsock.ts");
  // Other checkouts build into the same cache.
  run("flock", [join(cache, "vhost-device-vsock/lock"), process.execPath, script, cache, rustTarget]);
  const built = cachedVhostDeviceVsock({ cache, rustTarget });
  if (built === undefined) throw new Error(`${cache} does not have the vhost-device-vsock that was just built`);
  return built;
}

/** Gives the paths of the files that the bundle has code of, below the project's root. */
async function bundle(): Promise<string[]> {
  const { metafile } = await build({
    entryPoints: [join(root, "src/main.ts")],
    absWorkingDir: root,
    metafile: true,
    outfile: join(work, "main.cjs"),
    bundle: true,
    minify: true,
    platform: "node",
    target: "node26",
    format: "cjs",
    define: { "import.meta.dirname": "__dirname" },
    logLevel: "warning",
  });
  const inputs = Object.values(metafile.outputs).flatMap((one) => Object.entries(one.inputs));
  return inputs.filter(([, { bytesInOutput }]) => bytesInOutput > 0).map(([path]) => path);
}

const v8Flags = ["--max-semi-space-size=1"];

function buildExecutable(): string {
  // Only an unbuilt node may be stripped: the finished file breaks.
  const node = join(work, "node");
  copyFileSync(process.execPath, node);
  run("strip", [node]);
  const target = join(work, "litegix-fc-driver");
  const config = {
    main: join(work, "main.cjs"),
    output: target,
    executable: node,
    disableExperimentalSEAWarning: true,
    useCodeCache: true,
    useSnapshot: false,
    execArgv: [...v8Flags, "--no-warnings"],
    // NODE_OPTIONS of the agent's environment must not reach a daemon.
    execArgvExtension: "none",
    assets: Object.fromEntries(
      ["litegix-init", "litegix-shim", "vhost-device-vsock"].map((name) => [name, join(assets, name)]),
    ),
  };
  const configPath = join(work, "sea.json");
  writeFileSync(configPath, JSON.stringify(config));
  // A code cache that was made with other flags is rejected at every start, silently.
  run(process.execPath, [...v8Flags, "--build-sea", configPath]);
  const final = join(dist, "litegix-fc-driver");
  renameSync(target, final);
  return final;
}

/** Fails if the licence of a work is not allowed. */
function writeDocuments(executable: string, components: readonly Component[]): void {
  const refused = refusedLicences(components, readAllowed(root));
  if (refused.length > 0) throw new Error(refused.join("; "));
  const { name, version, license } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as Record<
    string,
    string
  >;
  const product = { name: name ?? "", version: version ?? "", licence: license ?? "", sha256: sha256(executable) };
  const [bill, text] = [join(dist, "sbom.cdx.json"), join(dist, "THIRD_PARTY_NOTICES.txt")];
  writeFileSync(bill, `${JSON.stringify(billOfMaterials(product, components), undefined, 2)}\n`);
  writeFileSync(text, notices(product, components));
  const sums = [executable, bill, text].map((file) => `${sha256(file)}  ${basename(file)}\n`);
  writeFileSync(join(dist, "SHA256SUMS"), sums.join(""));
}

const sha256 = (file: string): string => createHash("sha256").update(readFileSync(file)).digest("hex");

function collectComponents(bundled: readonly string[], vhost: VhostDeviceVsock): Component[] {
  const metadata = cargoMetadata(root);
  const lock = readFileSync(join(root, "Cargo.lock"), "utf8");
  const programs = ["litegix-init", "litegix-shim"];
  const versions = {
    rustc: /^rustc (\S+)/.exec(output("rustc", ["--version"]))?.[1] ?? "unknown",
    glibc: output("getconf", ["GNU_LIBC_VERSION"]).replace("glibc ", ""),
    gcc: output("gcc", ["-dumpfullversion"]),
  };
  return [
    nodeComponent(root),
    ...npmComponents({ root, files: bundled, part: "bundle" }),
    ...programs.flatMap((program) => cargoComponents({ metadata, lock, programs: [program], part: program })),
    ...vhost.components,
    ...toolchainComponents({
      versions,
      sysroot: output("rustc", ["--print", "sysroot"]),
      part: [...programs, "vhost-device-vsock"].join(", "),
    }),
  ];
}

mkdirSync(assets, { recursive: true });
mkdirSync(work, { recursive: true });
step("Rust programs", buildRust);
const vhost = step("vhost-device-vsock", findVhostDeviceVsock);
copyFileSync(vhost.program, join(assets, "vhost-device-vsock"));
if (!process.argv.includes("--assets-only")) {
  const start = performance.now();
  const bundled = await bundle();
  console.log(`build: bundle (${((performance.now() - start) / 1000).toFixed(1)} s)`);
  const executable = step("single executable", buildExecutable);
  rmSync(work, { recursive: true });
  step("smoke test", () => run(executable, ["version"]));
  step("notices, bill of materials, checksums", () => writeDocuments(executable, collectComponents(bundled, vhost)));
  console.log(`build: ${executable}, ${(statSync(executable).size / 1e6).toFixed(1)} MB`);
}
