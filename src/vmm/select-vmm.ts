// Chooses the program that runs the VMs on this host, and says why. Firecracker is the product; QEMU stands in if there is no
// Firecracker, or no KVM that runs guests.
import { join } from "node:path";
import { UnusableVmmError, VmmMissingError } from "./errors.ts";
import { findFirecracker, findJailer, versionWarning } from "./firecracker/find-firecracker.ts";
import { FirecrackerVmm } from "./firecracker/firecracker-vmm.ts";
import { inspectKvm, type KvmPaths, type KvmVerdict, probeKvm, type RunProbe } from "./probe-kvm.ts";
import { findQemu, readTscKhz } from "./qemu/find-qemu.ts";
import { QemuVmm } from "./qemu/qemu-vmm.ts";
import type { Vmm } from "./vmm.ts";

export type VmmChoice = "auto" | "firecracker" | "qemu";

export interface SelectVmmOptions {
  readonly choice: VmmChoice;
  readonly firecrackerPath: string | undefined;
  /** Undefined: VMs are not jailed. */
  readonly jailer: { readonly path: string | undefined } | undefined;
  readonly qemuPath: string | undefined;
  readonly vhostDeviceVsockPath: string;
  readonly runProbe: RunProbe;
  /** A probe's verdict holds for these files: kernel, initramfs. */
  readonly subjects: readonly string[];
  /** Keeps the probes' verdicts. */
  readonly cacheDirectory: string;
  readonly signal?: AbortSignal | undefined;
  /** Default: the host's own. */
  readonly paths?: KvmPaths;
}

export interface SelectedVmm {
  readonly vmm: Vmm;
  /** One sentence for the operator. */
  readonly reason: string;
  /** One sentence for each thing that works, but should not stay so. */
  readonly warnings: readonly string[];
}

/** Fails with VmmMissingError or UnusableVmmError, whose messages say what to install or change. */
export async function selectVmm(options: SelectVmmOptions): Promise<SelectedVmm> {
  switch (options.choice) {
    case "firecracker": {
      const { vmm, verdict } = await tryFirecracker(options);
      if (!verdict.usable) throw new UnusableVmmError({ program: "Firecracker", reason: verdict.reason });
      const reason = 'set by the plugin config (vmm = "firecracker")';
      return { vmm, reason, warnings: firecrackerWarnings(vmm, verdict.seccomp) };
    }
    case "qemu": {
      const { vmm, whyEmulated } = await tryQemu(options);
      return { vmm, reason: `set by the plugin config (vmm = "qemu"); ${guestsRun(whyEmulated)}`, warnings: [] };
    }
    case "auto":
      return await selectAutomatically(options);
  }
}

async function selectAutomatically(options: SelectVmmOptions): Promise<SelectedVmm> {
  let whyNotFirecracker: string;
  try {
    const { vmm, verdict } = await tryFirecracker(options);
    if (verdict.usable) {
      const reason = "Firecracker is installed and KVM runs guests";
      return { vmm, reason, warnings: firecrackerWarnings(vmm, verdict.seccomp) };
    }
    whyNotFirecracker = verdict.reason;
  } catch (error) {
    if (!(error instanceof VmmMissingError)) throw error;
    whyNotFirecracker = "no Firecracker is installed";
  }
  try {
    const { vmm, whyEmulated } = await tryQemu(options);
    const reason = `QEMU stands in for Firecracker: ${whyNotFirecracker}; ${guestsRun(whyEmulated, whyNotFirecracker)}`;
    return { vmm, reason, warnings: [] };
  } catch (error) {
    if (!(error instanceof VmmMissingError)) throw error;
    throw new UnusableVmmError({
      program: "Firecracker",
      reason: `${whyNotFirecracker}; install Firecracker on a host with KVM, or qemu-system-x86 to run without either`,
      cause: error,
    });
  }
}

async function tryFirecracker(options: SelectVmmOptions): Promise<{ vmm: Vmm; verdict: KvmVerdict }> {
  const { signal } = options;
  const { path, version } = await findFirecracker({ path: options.firecrackerPath, signal });
  const inspected = await inspectKvm(options.paths);
  if (!inspected.usable) return { vmm: new FirecrackerVmm({ firecrackerPath: path, version }), verdict: inspected };
  const jailerPath =
    options.jailer && (await findJailer({ path: options.jailer.path, firecracker: { path, version }, signal }));
  const vmm = new FirecrackerVmm({ firecrackerPath: path, version, jailerPath });
  return { vmm, verdict: await probe(vmm, options) };
}

export const noSeccompWarning = "this build of Firecracker has no seccomp filter: install an official release";

function firecrackerWarnings(vmm: Vmm, seccomp: boolean): string[] {
  const warnings = [versionWarning(vmm.version)];
  if (!vmm.jailed) {
    warnings.push(
      "VMs are NOT JAILED (jailer { enabled = false }): a guest that breaks out of Firecracker is root on this host",
    );
  }
  if (!seccomp) warnings.push(noSeccompWarning);
  return warnings.filter((warning) => warning !== undefined);
}

/** How QEMU runs them, without the reason if the message gives it already. */
function guestsRun(whyEmulated: string | undefined, told?: string): string {
  if (whyEmulated === undefined) return "KVM runs guests";
  return `guests are emulated in software${whyEmulated === told ? "" : ` (${whyEmulated})`}`;
}

async function tryQemu(options: SelectVmmOptions): Promise<{ vmm: Vmm; whyEmulated: string | undefined }> {
  const { signal } = options;
  const found = await findQemu({ path: options.qemuPath, signal });
  const common = {
    qemuPath: found.path,
    version: found.version,
    vhostDeviceVsockPath: options.vhostDeviceVsockPath,
    tscKhz: await readTscKhz(),
  };
  const accelerated = new QemuVmm({ ...common, acceleration: "kvm" });
  const verdict = await probe(accelerated, options);
  if (verdict.usable) return { vmm: accelerated, whyEmulated: undefined };
  return { vmm: new QemuVmm({ ...common, acceleration: "emulation" }), whyEmulated: verdict.reason };
}

async function probe(vmm: Vmm, options: SelectVmmOptions): Promise<KvmVerdict> {
  const { runProbe: run, subjects, signal, paths } = options;
  const cachePath = join(options.cacheDirectory, `kvm-probe-${vmm.kind}.json`);
  return await probeKvm({ vmm, run, subjects, cachePath, signal, ...(paths && { paths }) });
}
