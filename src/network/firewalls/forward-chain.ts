// Lets VMs' packets pass other software's firewalls. Every table must accept a packet, so the driver's own table cannot undo
// docker's FORWARD policy of "drop". Like CNI's firewall plugin, the driver puts accepting rules at the head of that chain: two
// rules for all VMs, while a VM exists. It never touches another rule.

import { NetworkSetupError } from "../errors.ts";
import { ask } from "../host/tools.ts";
import { readTaps } from "../plan/address-pool.ts";
import { distrustTaps, trustTaps } from "./firewalld.ts";

const comment = ["-m", "comment", "--comment", "litegix-fc-driver"];
/** `+` matches the rest of a TAP's name. */
const rules: readonly (readonly string[])[] = [
  ["-i", "lg+", ...comment, "-j", "ACCEPT"],
  ["-o", "lg+", "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED,DNAT", ...comment, "-j", "ACCEPT"],
];

interface Options {
  readonly signal?: AbortSignal | undefined;
}

async function iptables(options: Options, ...args: string[]): Promise<string> {
  return await ask({ namespacePath: undefined, signal: options.signal, argv: ["iptables", "-w", "5", ...args] });
}

/** The chain's current rules; undefined if the host does not have iptables. */
async function readChain(options: Options): Promise<string | undefined> {
  try {
    return await iptables(options, "-S", "FORWARD");
  } catch {
    options.signal?.throwIfAborted();
    return undefined;
  }
}

const isThere = (chain: string, rule: readonly string[]): boolean =>
  chain.split("\n").some((line) => line.includes("litegix-fc-driver") && line.includes(` ${rule[0]} lg+ `));

/** Lets VMs' packets pass. Each method must be called in a turn of the host's namespace. */
export class Forwarding {
  /** Spares every VM's start a look at the host's chain and zones. */
  #isOpen = false;

  /** Called when a VM starts. Fails with NetworkSetupError. */
  async open(options: Options): Promise<void> {
    if (this.#isOpen) return;
    await addRules(options);
    // Set before firewalld answers: it is asked once, because the other starts wait for this one.
    this.#isOpen = true;
    try {
      await trustTaps(options);
    } catch {
      // firewalld has its table but does not answer; it may still be starting. `keep` tries again and reports.
      options.signal?.throwIfAborted();
    }
  }

  /** Restores rules and membership that something removed while VMs exist. Fails with NetworkSetupError. */
  async keep(options: Options): Promise<void> {
    if ((await readTaps()).size === 0) return;
    await addRules(options);
    try {
      await trustTaps(options);
    } catch (error) {
      options.signal?.throwIfAborted();
      throw new NetworkSetupError({ step: "letting VMs' packets pass firewalld", cause: error as Error });
    }
  }

  /** Does its work only after the last VM of all drivers on this host. Never fails: leftover rules are harmless. */
  async close(options: Options): Promise<void> {
    // Another agent's driver may remove them after its own last VM.
    this.#isOpen = false;
    if ((await readTaps()).size > 0) return;
    const chain = (await readChain(options)) ?? "";
    for (const rule of rules) {
      if (isThere(chain, rule)) await iptables(options, "-D", "FORWARD", ...rule).catch(() => undefined);
    }
    await distrustTaps(options);
  }
}

/** Does nothing if the chain lets every packet pass. */
async function addRules(options: Options): Promise<void> {
  const chain = await readChain(options);
  if (chain === undefined) return;
  // Any other rule in the chain may drop packets too, so ours go before it.
  const isOpen = /^-P FORWARD ACCEPT$/m.test(chain) && !/^-A FORWARD (?!.*litegix-fc-driver)/m.test(chain);
  if (isOpen) return;
  try {
    for (const rule of rules) if (!isThere(chain, rule)) await iptables(options, "-I", "FORWARD", ...rule);
  } catch (error) {
    options.signal?.throwIfAborted();
    throw new NetworkSetupError({ step: "letting VMs' packets pass iptables' FORWARD chain", cause: error as Error });
  }
}
