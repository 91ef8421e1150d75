// Checks all dependencies offline, those of builds and tests included: licences against deny.toml's list, and that each package comes
// from its registry with a checksum in the lock file. Advisories need a network: scripts/audit.sh. Usage: node scripts/check-dependencies.ts
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { readAllowed, refusedLicences } from "./supply/allowed-licences.ts";
import { cargoMetadata } from "./supply/cargo.ts";
import { cargoChecksums, readNpmLock } from "./supply/component.ts";

const root = join(import.meta.dirname, "..");

/** Licences of tools that run at build time only. */
const toolLicences: readonly string[] = ["BlueOak-1.0.0", "PSF-2.0", "Python-2.0"];

function* npmFaults(allowed: ReadonlySet<string>): Generator<string> {
  const packages = Object.entries(readNpmLock(root)).filter(([, { link }]) => link !== true);
  const origins = new Set<string>();
  for (const [path, { integrity, resolved }] of packages) {
    if (integrity?.startsWith("sha512-") !== true) yield `${path} has no sha512 in package-lock.json`;
    if (resolved !== undefined) origins.add(new URL(resolved).origin);
  }
  const strange = [...origins].filter((origin) => !origin.startsWith("https://"));
  if (origins.size > 1 || strange.length > 0) yield `package-lock.json takes packages from ${[...origins].join(", ")}`;
  for (const [path, { version = "", license = "none", dev }] of packages) {
    const accepted = dev === true ? new Set([...allowed, ...toolLicences]) : allowed;
    yield* refusedLicences([{ name: path, version, licence: license }], accepted);
  }
}

function* cargoFaults(allowed: ReadonlySet<string>): Generator<string> {
  const lock = readFileSync(join(root, "Cargo.lock"), "utf8");
  const checksums = cargoChecksums(lock);
  for (const { name, version, license, source } of cargoMetadata(root).packages) {
    if (source !== null && !/^registry\+.*\/crates\.io-index$/.test(source))
      yield `${name} ${version} comes from ${source}`;
    if (source !== null && !checksums.has(`${name} ${version}`))
      yield `${name} ${version} has no checksum in Cargo.lock`;
    yield* refusedLicences([{ name, version, licence: license ?? "none" }], allowed);
  }
}

const allowed = readAllowed(root);
const faults = [...npmFaults(allowed), ...cargoFaults(allowed)];
for (const line of faults) console.error(line);
if (faults.length > 0) process.exitCode = 1;
console.log(`dependencies: ${faults.length} faults`);
