// Finds out if KVM truly runs guests here. /dev/kvm alone proves nothing: paravirtual kinds accept a stock kernel and
// never run it. The probed VMM boots our kernel and initramfs, whose init prints a line and reboots at once.
import { constants } from "node:fs";
import { access, readdir, readFile } from "node:fs/promises";
import * as v from "valibot";
import { writeFileAtomically } from "../system/files.ts";
import type { Vmm } from "./vmm.ts";

/** `seccomp`: a filter was in force in the VMM while its guest ran. */
export type KvmVerdict =
  | { readonly usable: true; readonly seccomp: boolean }
  | { readonly usable: false; readonly reason: string };

/** On the kernel's command line it makes init print the answer, before anything else, and restart. */
export const probeArgument = "litegix_probe=1";
export const probeAnswer = "litegix-probe-ok";
const probeTimeoutMs = 30_000;

export interface ProbeOutcome {
  /** Before the deadline. */
  readonly ended: boolean;
  /** From the guest's start to its end, or to the deadline. */
  readonly elapsedMs: number;
  readonly console: string;
  readonly seccomp: boolean;
}

/** Runs a guest with `probeArgument` to its end, as tasks' VMs are run. */
export type RunProbe = (options: { vmm: Vmm; timeoutMs: number; signal: AbortSignal }) => Promise<ProbeOutcome>;

export interface ProbeOptions {
  readonly vmm: Vmm;
  readonly run: RunProbe;
  /** The verdict holds for these files (kernel, initramfs), this boot of the host and this VMM. */
  readonly subjects: readonly string[];
  /** Remembers the verdict until the host's next boot. */
  readonly cachePath: string;
  readonly signal?: AbortSignal | undefined;
  readonly paths?: KvmPaths;
}

/** The files that describe a host's KVM. */
export interface KvmPaths {
  readonly device: string;
  readonly modules: string;
  readonly cpuinfo: string;
  readonly bootId: string;
}

const hostPaths: KvmPaths = {
  device: "/dev/kvm",
  modules: "/sys/module",
  cpuinfo: "/proc/cpuinfo",
  bootId: "/proc/sys/kernel/random/boot_id",
};

/** The verdict without a VM, as far as that goes. */
export async function inspectKvm(
  paths: KvmPaths = hostPaths,
): Promise<{ readonly usable: true } | (KvmVerdict & { readonly usable: false })> {
  try {
    await access(paths.device, constants.R_OK | constants.W_OK);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const reason = code === "ENOENT" ? "there is no /dev/kvm" : `/dev/kvm may not be opened by this user (${code})`;
    return { usable: false, reason };
  }
  const modules = await readdir(paths.modules).catch(() => [] as string[]);
  if (modules.includes("kvm_pvm")) {
    return { usable: false, reason: "/dev/kvm is of the paravirtual kind (kvm_pvm), which runs no stock guest kernel" };
  }
  const cpuinfo = await readFile(paths.cpuinfo, "utf8").catch(() => "");
  if (/^flags\s*:/m.test(cpuinfo) && !/^flags\s*:.*\b(vmx|svm)\b/m.test(cpuinfo)) {
    return { usable: false, reason: "the CPU shows neither vmx nor svm (nested virtualisation is off)" };
  }
  return { usable: true };
}

/** Boots a guest, or returns the verdict of an earlier boot since the host was started. Never throws for a bad KVM. */
export async function probeKvm(options: ProbeOptions): Promise<KvmVerdict> {
  const { vmm, subjects, paths = hostPaths } = options;
  const inspected = await inspectKvm(paths);
  if (!inspected.usable) return inspected;
  const bootId = (await readFile(paths.bootId, "utf8").catch(() => "")).trim();
  const key = [bootId, vmm.kind, vmm.version, vmm.jailed ? "jailed" : "free", ...subjects].join(" ");
  const known = await readVerdict(options.cachePath, key);
  if (known !== undefined) return known;
  const { verdict, final } = await bootProbe(options);
  if (final) await writeFileAtomically({ path: options.cachePath, content: JSON.stringify({ key, verdict }) });
  return verdict;
}

const cacheSchema = v.object({
  key: v.string(),
  verdict: v.variant("usable", [
    v.object({ usable: v.literal(true), seccomp: v.boolean() }),
    v.object({ usable: v.literal(false), reason: v.string() }),
  ]),
});

async function readVerdict(path: string, key: string): Promise<KvmVerdict | undefined> {
  try {
    const cached = v.parse(cacheSchema, JSON.parse(await readFile(path, "utf8")));
    return cached.key === key ? cached.verdict : undefined;
  } catch {
    return undefined;
  }
}

/** `final`: the verdict is about KVM, not about an earlier failure. */
async function bootProbe(options: ProbeOptions): Promise<{ verdict: KvmVerdict; final: boolean }> {
  const signal = options.signal ?? new AbortController().signal;
  const unusable = (reason: string): KvmVerdict => ({ usable: false, reason });
  try {
    const { ended, elapsedMs, console, seccomp } = await options.run({
      vmm: options.vmm,
      timeoutMs: probeTimeoutMs,
      signal,
    });
    if (!ended) {
      const reason = `KVM runs no guest here: a guest did not end within ${Math.round(elapsedMs / 1000)} s`;
      return { verdict: unusable(reason), final: true };
    }
    if (console.includes(probeAnswer)) return { verdict: { usable: true, seccomp }, final: true };
    const last = console.trim().split("\n").at(-1)?.slice(0, 200) ?? "";
    const reason = `KVM runs no guest here: the VMM ended without a word from its guest ${last}`.trim();
    return { verdict: unusable(reason), final: true };
  } catch (error) {
    options.signal?.throwIfAborted();
    return { verdict: unusable(`a VM could not be started: ${(error as Error).message}`), final: false };
  }
}
