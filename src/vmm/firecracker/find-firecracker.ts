// Finds Firecracker and its jailer, and says which version they are.
import { basename, dirname, join } from "node:path";
import { findTrustedProgram } from "../../system/processes.ts";
import { runCommand } from "../../system/run-command.ts";
import { UnusableVmmError, VmmMissingError } from "../errors.ts";
import { isStatic } from "./is-static.ts";

export interface FoundFirecracker {
  /** Absolute, without links. */
  readonly path: string;
  readonly version: string;
}

/**
 * The oldest version whose API has everything that the driver uses, and the newest that the tests ran on; both are
 * "major.minor".
 */
const oldest = "1.14";
const newestTested = "1.16";

/** Fails with VmmMissingError, or with UnusableVmmError for a version that is too old. */
export async function findFirecracker(options: {
  path: string | undefined;
  signal?: AbortSignal | undefined;
}): Promise<FoundFirecracker> {
  const wanted = options.path ?? "firecracker";
  const cure = "install the official release into PATH, or set firecracker_path";
  const path = await findTrustedProgram(wanted);
  if (path === undefined) throw new VmmMissingError({ program: "Firecracker", path: wanted, cure });
  const version = await readVersion({ program: "Firecracker", path, cure, signal: options.signal });
  if (compareVersions(version, oldest) < 0) {
    throw new UnusableVmmError({
      program: "Firecracker",
      reason: `${path} is version ${version}; the oldest supported is ${oldest}`,
    });
  }
  return { path, version };
}

/** The jailer of the same release. Fails with UnusableVmmError. */
export async function findJailer(options: {
  path: string | undefined;
  firecracker: FoundFirecracker;
  signal?: AbortSignal | undefined;
}): Promise<string> {
  const { firecracker, signal } = options;
  if (!(await isStatic(firecracker.path))) {
    const reason = `${firecracker.path} is dynamically linked, and a jail has no libraries`;
    throw new UnusableVmmError({
      program: "Firecracker",
      reason: `${reason}: install the official release, which is static`,
    });
  }
  // Beside Firecracker first: releases name both files alike, with the version.
  const beside = join(dirname(firecracker.path), basename(firecracker.path).replace("firecracker", "jailer"));
  const candidates = options.path === undefined ? [beside, "jailer"] : [options.path];
  const cure =
    "install it beside Firecracker or set jailer_path; jailer { enabled = false } in the plugin's config does without";
  for (const candidate of candidates) {
    const path = await findTrustedProgram(candidate);
    if (path === undefined || path === firecracker.path) continue;
    const version = await readVersion({ program: "jailer", path, cure, signal }).catch((error: VmmMissingError) => {
      throw new UnusableVmmError({ program: "Firecracker", reason: error.text, cause: error });
    });
    if (version === firecracker.version) return path;
    const reason = `its version is ${firecracker.version} and that of the jailer ${path} is ${version}; ${cure}`;
    throw new UnusableVmmError({ program: "Firecracker", reason });
  }
  throw new UnusableVmmError({
    program: "Firecracker",
    reason: `there is no jailer (${candidates.join(", ")}); ${cure}`,
  });
}

/** A warning about a version that works; undefined if there is nothing to say. */
export function versionWarning(version: string): string | undefined {
  if (compareVersions(version, newestTested) <= 0) return undefined;
  return `Firecracker ${version} is newer than the newest that the driver was tested on (${newestTested})`;
}

async function readVersion(options: {
  program: string;
  path: string;
  cure: string;
  signal: AbortSignal | undefined;
}): Promise<string> {
  const { program, path, signal } = options;
  try {
    const output = await runCommand({ file: path, args: ["--version"], timeoutMs: 60_000, signal });
    const version = /^(?:Firecracker|Jailer) v(\d+\.\d+\.\d+\S*)/im.exec(output.stdout)?.[1];
    if (version === undefined) throw new Error("it prints no version");
    return version;
  } catch (error) {
    signal?.throwIfAborted();
    throw new VmmMissingError({ program, path, cure: options.cure, cause: error });
  }
}

/** Compares major and minor only. */
function compareVersions(a: string, b: string): number {
  const [majorA = 0, minorA = 0] = a.split(".").map((part) => Number.parseInt(part, 10));
  const [majorB = 0, minorB = 0] = b.split(".").map((part) => Number.parseInt(part, 10));
  return majorA - majorB || minorA - minorB;
}
