// Builds dist/litegix-fc-driver: the Rust programs, the bundle, and both in one Node single executable.
// Usage: node scripts/build.ts [--assets-only]
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { build } from "esbuild";
import { buildVhostDeviceVsock } from "./vhost-device-vsock.ts";

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

async function bundle(): Promise<void> {
  await build({
    entryPoints: [join(root, "src/main.ts")],
    outfile: join(work, "main.cjs"),
    bundle: true,
    minify: true,
    platform: "node",
    target: "node26",
    format: "cjs",
    define: { "import.meta.dirname": "__dirname" },
    logLevel: "warning",
  });
}

const v8Flags = ["--max-semi-space-size=1"];

function buildExecutable(): string {
  // Only an unbuilt node may be stripped: the finished file breaks.
  const node = join(work, "node");
  copyFileSync(process.execPath, node);
  run("strip", [node]);
  const output = join(work, "litegix-fc-driver");
  const config = {
    main: join(work, "main.cjs"),
    output,
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
  renameSync(output, final);
  return final;
}

mkdirSync(assets, { recursive: true });
mkdirSync(work, { recursive: true });
step("Rust programs", buildRust);
step("vhost-device-vsock", () =>
  copyFileSync(buildVhostDeviceVsock({ cache, rustTarget }), join(assets, "vhost-device-vsock")),
);
if (!process.argv.includes("--assets-only")) {
  const start = performance.now();
  await bundle();
  console.log(`build: bundle (${((performance.now() - start) / 1000).toFixed(1)} s)`);
  const executable = step("single executable", buildExecutable);
  rmSync(work, { recursive: true });
  step("smoke test", () => run(executable, ["version"]));
  console.log(`build: ${executable}, ${(statSync(executable).size / 1e6).toFixed(1)} MB`);
}
