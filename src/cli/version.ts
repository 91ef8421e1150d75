// `version`: the versions in this file.
import { guestGenerations } from "../guest/client.ts";
import { driverName, version } from "../version.ts";

export function runVersion(): void {
  const { min, max } = guestGenerations;
  const generations = min === max ? `${max}` : `${min} to ${max}`;
  const parts = [`guest protocol ${generations}`, `Node ${process.versions.node}`, process.arch];
  process.stdout.write(`${driverName} ${version} (${parts.join(", ")})\n`);
}
