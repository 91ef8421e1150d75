// `version`: what is inside this file.
import { driverName, version } from "../version.ts";

export function runVersion(): void {
  process.stdout.write(`${driverName} ${version} (Node ${process.versions.node}, ${process.arch})\n`);
}
