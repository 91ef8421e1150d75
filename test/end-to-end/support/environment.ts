// The programs under test and their helpers, as scripts/test-e2e.sh prepared them.
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";

const project = join(import.meta.dirname, "../../..");

export const driverPath = join(project, "dist/litegix-fc-driver");

function required(name: string): string {
  const value = process.env[name];
  if (value === undefined || value === "") throw new Error(`${name} is not set: run the tests by make test-e2e`);
  return value;
}

export const nomadPath = required("LITEGIX_E2E_NOMAD");
/** Holds boot/vmlinuz-* and lib/modules. */
export const kernelDirectory = required("LITEGIX_E2E_KERNEL");
/** An OCI image layout with the image "latest". */
export const busyboxLayout = required("LITEGIX_E2E_BUSYBOX");

/**
 * True in the emulated machine of test/rig: everything takes longer there, and some things end by a fault of the
 * emulation.
 */
export const inRig = process.env["LITEGIX_IN_RIG"] !== undefined;

export const vmm = process.env["LITEGIX_E2E_VMM"] ?? "auto";

/** FIRECRACKER, or `firecracker` on PATH; undefined if neither exists. */
export function findFirecracker(): string | undefined {
  const named = process.env["FIRECRACKER"];
  if (named !== undefined && named !== "") return named;
  return (process.env["PATH"] ?? "")
    .split(delimiter)
    .map((directory) => join(directory, "firecracker"))
    .find((path) => {
      try {
        accessSync(path, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}

/** The reason that tests which start VMs can't run here, for node:test's `skip`; false if they can. */
export const skipVms: string | false =
  vmm === "firecracker" && findFirecracker() === undefined
    ? "LITEGIX_E2E_VMM=firecracker, but there is no Firecracker: set FIRECRACKER or put it on PATH"
    : false;

/** The same for tests of Firecracker itself, which other VMMs can't pass. */
export const skipFirecracker: string | false =
  vmm === "firecracker" ? skipVms : "only on Firecracker: make test-firecracker";

/** Software emulation is ten times slower than KVM, and ten times more if nested. */
export const bootTimeoutMs = 180_000;
