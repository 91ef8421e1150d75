// Chooses the program that runs the VMs on this host, and says why. Firecracker is the product. QEMU stands in if no Firecracker
// is installed, and nowhere else by itself: a host whose KVM breaks must not go on with a weaker boundary unseen.
import { join } from "node:path";
import { findProgram } from "../system/processes.ts";
import { UnusableVmmError, VmmMissingError } from "./errors.ts";
import { findFirecracker, findJailer, versionWarning } from "./firecracker/find-firecracker.ts";
import { FirecrackerVmm } from "./firecracker/firecracker-vmm.ts";
import { inspectKvm, type KvmPaths, type KvmVerdict, probeKvm, type RunProbe } from "./probe-kvm.ts";
import { findQemu, readTscKhz } from "./qemu/find-qemu.ts";
import { QemuVmm } from "./qemu/qemu-vmm.ts";
import { isolationOf, type Vmm } from "./vmm.ts";

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
      return { vmm, reason, warnings: warningsOf(vmm, verdict.seccomp) };
    }
    case "qemu": {
      const { vmm, whyEmulated } = await tryQemu(options);
      const reason = `set by the plugin config (vmm = "qemu"); ${guestsRun(whyEmulated)}`;
      return { vmm, reason, warnings: warningsOf(vmm) };
    }
    case "auto":
      return await selectAutomatically(options);
  }
}

async function selectAutomatically(options: SelectVmmOptions): Promise<SelectedVmm> {
  // A path in the config counts as an installation, even if nothing is there any more.
  const installed = options.firecrackerPath ?? (await findProgram("firecracker"));
  if (installed !== undefined) return await insistOnFirecracker(options);
  const whyNotFirecracker = "no Firecracker is installed";
  try {
    const { vmm, whyEmulated } = await tryQemu(options);
    const reason = `QEMU stands in for Firecracker: ${whyNotFirecracker}; ${guestsRun(whyEmulated)}`;
    return { vmm, reason, warnings: warningsOf(vmm) };
  } catch (error) {
    if (!(error instanceof VmmMissingError)) throw error;
    throw new UnusableVmmError({
      program: "Firecracker",
      reason: `${whyNotFirecracker}; install Firecracker on a host with KVM, or qemu-system-x86 to run without either`,
      cause: error,
    });
  }
}

async function insistOnFirecracker(options: SelectVmmOptions): Promise<SelectedVmm> {
  const cure = 'Firecracker is installed, so "auto" takes nothing else: cure this, or set vmm = "qemu"';
  const { vmm, verdict } = await tryFirecracker(options).catch((error: unknown) => {
    options.signal?.throwIfAborted();
    if (!(error instanceof UnusableVmmError || error instanceof VmmMissingError)) throw error;
    const why = error instanceof UnusableVmmError ? error.reason : error.text;
    throw new UnusableVmmError({ program: "Firecracker", reason: `${why}; ${cure}`, cause: error });
  });
  if (!verdict.usable) throw new UnusableVmmError({ program: "Firecracker", reason: `${verdict.reason}; ${cure}` });
  const reason = "Firecracker is installed and KVM runs guests";
  return { vmm, reason, warnings: warningsOf(vmm, verdict.seccomp) };
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

/** `seccomp`: only Firecracker's is asked for. */
function warningsOf(vmm: Vmm, seccomp = true): string[] {
  const firecracker = vmm.kind === "firecracker";
  const warnings = [firecracker ? versionWarning(vmm.version) : undefined];
  if (!vmm.jailed) {
    const program = firecracker ? "Firecracker" : "QEMU";
    warnings.push(
      `VMs are NOT JAILED (jailer { enabled = false }): a guest that breaks out of ${program} is root on this host`,
    );
  }
  const isolation = isolationOf(vmm);
  if (isolation.startsWith("qemu-emulated")) {
    warnings.push(
      "VMs are NOT ISOLATED BY HARDWARE: QEMU emulates them without KVM, which QEMU's own security page does not count " +
        "as a boundary; run only jobs that you trust (constrain others by the attribute isolation)",
    );
  }
  if (isolation.startsWith("qemu-kvm")) {
    warnings.push(
      "VMs run in QEMU, which a guest can attack in many more places than Firecracker: install Firecracker",
    );
  }
  if (!seccomp) warnings.push(noSeccompWarning);
  return warnings.filter((warning) => warning !== undefined);
}

function guestsRun(whyEmulated: string | undefined): string {
  return whyEmulated === undefined ? "KVM runs guests" : `guests are emulated in software (${whyEmulated})`;
}

async function tryQemu(options: SelectVmmOptions): Promise<{ vmm: Vmm; whyEmulated: string | undefined }> {
  const { signal } = options;
  const found = await findQemu({ path: options.qemuPath, signal });
  const common = {
    qemuPath: found.path,
    version: found.version,
    vhostDeviceVsockPath: options.vhostDeviceVsockPath,
    tscKhz: await readTscKhz(),
    jailed: options.jailer !== undefined,
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
