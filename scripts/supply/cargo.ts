// cargo's own description of a package and its dependencies.
import { execFileSync } from "node:child_process";
import type { CargoMetadata } from "./component.ts";

const rustTarget = "x86_64-unknown-linux-gnu";
const maxBytes = 64 << 20;

/** `directory`: of a Cargo.toml with a lock file, which stays as it is. */
export function cargoMetadata(directory: string): CargoMetadata {
  const output = execFileSync(
    "cargo",
    ["metadata", "--locked", "--quiet", "--format-version", "1", "--filter-platform", rustTarget],
    { cwd: directory, encoding: "utf8", maxBuffer: maxBytes, stdio: ["ignore", "pipe", "inherit"] },
  );
  return JSON.parse(output) as CargoMetadata;
}
