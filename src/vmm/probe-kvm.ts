// Finds out if KVM truly runs guests here. /dev/kvm alone proves nothing: paravirtual kinds accept a stock kernel and
// never run it. The probed VMM boots our kernel and initramfs, whose init prints a line and reboots at once. A guest that ran is
// proof until the host's next boot. A guest that did not run proves nothing: the host may have been out of memory, or busy. The
// probe is then repeated, less and less often. Only facts that are read anew each time (no device, the CPU, a paravirtual KVM)
// need no repetition.
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
/** From a failure to the next try; twice as long after each further one. A look at the host comes every 30 s. */
const minRetryMs = 20_000;
const maxRetryMs = 30 * 60_000;

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
  /** Remembers a success until the host's next boot, and a failure until the next try. */
  readonly cachePath: string;
  /** The wall clock in milliseconds. Other processes (doctor, the next plugin) go by the same times. */
  readonly now?: (() => number) | undefined;
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

/**
 * Boots a guest, or returns the verdict of an earlier boot: a success since the host was started, or a failure of a short while
 * ago. Never throws for a bad KVM.
 */
export async function probeKvm(options: ProbeOptions): Promise<KvmVerdict> {
  const { vmm, subjects, cachePath: path, now = Date.now, paths = hostPaths } = options;
  const inspected = await inspectKvm(paths);
  if (!inspected.usable) return inspected;
  const bootId = (await readFile(paths.bootId, "utf8").catch(() => "")).trim();
  const key = [bootId, vmm.kind, vmm.version, vmm.jailed ? "jailed" : "free", ...subjects].join(" ");
  const known = await readCache(path, key);
  if (known !== undefined && (known.verdict.usable || isTooEarly(known, now()))) return known.verdict;
  const verdict = await bootProbe(options);
  const entry: CacheEntry = { key, verdict, failures: verdict.usable ? 0 : (known?.failures ?? 0) + 1, atMs: now() };
  await writeFileAtomically({ path, content: JSON.stringify(entry) });
  return verdict;
}

/** A clock that was set back makes no failure last longer. */
function isTooEarly({ failures, atMs }: CacheEntry, nowMs: number): boolean {
  const elapsedMs = nowMs - atMs;
  return elapsedMs >= 0 && elapsedMs < Math.min(minRetryMs * 2 ** (failures - 1), maxRetryMs);
}

const cacheSchema = v.object({
  key: v.string(),
  verdict: v.variant("usable", [
    v.object({ usable: v.literal(true), seccomp: v.boolean() }),
    v.object({ usable: v.literal(false), reason: v.string() }),
  ]),
  /** In a row. */
  failures: v.number(),
  atMs: v.number(),
});

type CacheEntry = Readonly<v.InferOutput<typeof cacheSchema>>;

async function readCache(path: string, key: string): Promise<CacheEntry | undefined> {
  try {
    const cached = v.parse(cacheSchema, JSON.parse(await readFile(path, "utf8")));
    return cached.key === key ? cached : undefined;
  } catch {
    return undefined;
  }
}

async function bootProbe(options: ProbeOptions): Promise<KvmVerdict> {
  const signal = options.signal ?? new AbortController().signal;
  const unusable = (reason: string): KvmVerdict => ({ usable: false, reason });
  try {
    const { ended, elapsedMs, console, seccomp } = await options.run({
      vmm: options.vmm,
      timeoutMs: probeTimeoutMs,
      signal,
    });
    if (!ended) {
      return unusable(`KVM runs no guest here: a guest did not end within ${Math.round(elapsedMs / 1000)} s`);
    }
    if (console.includes(probeAnswer)) return { usable: true, seccomp };
    const last = console.trim().split("\n").at(-1)?.slice(0, 200) ?? "";
    return unusable(`KVM runs no guest here: the VMM ended without a word from its guest ${last}`.trim());
  } catch (error) {
    options.signal?.throwIfAborted();
    return unusable(`a VM could not be started: ${(error as Error).message}`);
  }
}
