// Runs the host's programs in a network namespace: `ip -batch` for links, addresses and routes, `nft -f` for rules (one
// transaction: all or nothing), and a shell for switches in /proc/sys.
import { inNamespace } from "../../system/processes.ts";
import { runCommand } from "../../system/run-command.ts";
import { NetworkSetupError, TapTakenError } from "../errors.ts";

export interface Place {
  /** A network namespace's file; undefined: the driver's own. */
  readonly namespacePath: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

async function runIn(
  place: Place & { timeoutMs?: number | undefined },
  argv: readonly [string, ...string[]],
  input?: string,
): Promise<string> {
  const { timeoutMs, signal } = place;
  const [file, ...args] = inNamespace(place.namespacePath, argv);
  const { stdout } = await runCommand({ file, args, input, timeoutMs, maxOutputBytes: 8 << 20, signal });
  return stdout;
}

export type Family = "-4" | "-6";

/**
 * `force`: a line that fails does not stop the others and is not an error. `family`: that of `rule` lines, which cannot name
 * it themselves, not even by `from ::/0`. Fails with NetworkSetupError.
 */
export async function runIp(
  options: Place & { lines: readonly string[]; force?: boolean; family?: Family },
): Promise<void> {
  const { family, force = false } = options;
  const flags = [...(family === undefined ? [] : [family]), ...(force ? ["-force"] : [])];
  try {
    await runIn(options, ["ip", ...flags, "-batch", "-"], `${options.lines.join("\n")}\n`);
  } catch (error) {
    options.signal?.throwIfAborted();
    if (!force) throw new NetworkSetupError({ step: "setting up the VM's interface", cause: error });
  }
}

/** The TAP is down, so no frame passes in either direction. Fails with TapTakenError or NetworkSetupError. */
export async function makeTap(options: Place & { tap: string; tapMac: string; mtu: number }): Promise<void> {
  const { tap, tapMac, mtu } = options;
  const lines = [`tuntap add dev ${tap} mode tap vnet_hdr`, `link set dev ${tap} address ${tapMac} mtu ${mtu}`];
  try {
    await runIp({ ...options, lines });
  } catch (error) {
    // The first line's ioctl failed with EBUSY.
    if (/TUNSETIFF.*busy/i.test((error as Error).message)) throw new TapTakenError({ tap, cause: error });
    throw error;
  }
}

/**
 * Moves a TAP that is down to another network namespace. A queue of it that is open stays open. Fails with TapTakenError or
 * NetworkSetupError.
 */
export async function moveTap(options: Place & { tap: string; to: string | undefined }): Promise<void> {
  const { tap, to, signal } = options;
  try {
    await runIn(options, ["ip", "link", "set", "dev", tap, "netns", to ?? `/proc/${process.pid}/ns/net`]);
  } catch (error) {
    signal?.throwIfAborted();
    // EEXIST, or the sentence that newer kernels put in its place.
    if (/File exists|same name exists/.test((error as Error).message)) throw new TapTakenError({ tap, cause: error });
    throw new NetworkSetupError({ step: "moving the VM's interface", cause: error });
  }
}

/** Fails with NetworkSetupError. */
export async function runNft(options: Place & { lines: readonly string[] }): Promise<void> {
  try {
    await runIn(options, ["nft", "-f", "-"], `${options.lines.join("\n")}\n`);
  } catch (error) {
    options.signal?.throwIfAborted();
    throw new NetworkSetupError({ step: "setting up the VM's packet rules", cause: error });
  }
}

/** Returns the output of a program that only reads, e.g. ["ip", "-j", "route"]. Fails with CommandError. */
export async function ask(
  options: Place & { argv: readonly [string, ...string[]]; timeoutMs?: number | undefined },
): Promise<string> {
  return await runIn(options, options.argv);
}

/** `values`: from paths below /proc/sys to their new content. Fails with NetworkSetupError. */
export async function setSwitches(options: Place & { values: Readonly<Record<string, string>> }): Promise<void> {
  const script = 'while [ $# -gt 0 ]; do echo "$2" > "/proc/sys/$1"; shift 2; done';
  const pairs = Object.entries(options.values).flat();
  try {
    await runIn(options, ["sh", "-e", "-c", script, "sh", ...pairs]);
  } catch (error) {
    options.signal?.throwIfAborted();
    throw new NetworkSetupError({ step: "setting the kernel's network switches", cause: error });
  }
}

/** Rejects with the first failure after all promises have settled, because a step that still runs would disturb the clean-up. */
export async function allDone(works: readonly Promise<unknown>[]): Promise<void> {
  await Promise.allSettled(works);
  await Promise.all(works);
}
