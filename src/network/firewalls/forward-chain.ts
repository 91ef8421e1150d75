// Other software's firewalls on the host's way between VMs and the outside. A packet must be accepted by every table, so rules
// of our own can't lift docker's FORWARD policy of "drop". As CNI's firewall plugin does, we put an accepting rule in front of
// that chain, and never touch another rule: two rules for all VMs, there as long as a VM is.

import { ask, inTurn } from "../apply/tools.ts";
import { NetworkSetupError } from "../errors.ts";
import { readTaps } from "../plan/address-pool.ts";
import { distrustTaps, trustTaps } from "./firewalld.ts";

const comment = ["-m", "comment", "--comment", "litegix-fc-driver"];
/** `+` stands for the rest of a TAP's name. */
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

/** The chain as it stands; undefined where iptables is not used. */
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

/** What this process knows to be so, so that not every VM's start asks. */
let allowed = false;

/** For a VM that starts. Fails with NetworkSetupError. */
export async function allowForwarding(options: Options): Promise<void> {
  if (allowed) return;
  await putRules(options);
  // Asked once, whatever it says: others that start wait for this one.
  allowed = true;
  try {
    await trustTaps(options);
  } catch {
    // Its table is there, but it does not answer: it may just be starting. `keepForwarding` tries again, and tells.
    options.signal?.throwIfAborted();
  }
}

/** Puts rules and membership back where VMs are and something took them. Fails with NetworkSetupError. */
export async function keepForwarding(options: Options): Promise<void> {
  // In turn with the last VM's end, which takes them away.
  await inTurn(undefined, async () => {
    if ((await readTaps()).size === 0) return;
    await putRules(options);
    try {
      await trustTaps(options);
    } catch (error) {
      options.signal?.throwIfAborted();
      throw new NetworkSetupError({ step: "letting VMs' packets pass firewalld", cause: error as Error });
    }
  });
}

/** Does nothing where packets pass anyway. */
async function putRules(options: Options): Promise<void> {
  const chain = await readChain(options);
  if (chain === undefined) return;
  // Whatever comes before the end of the chain may drop as well: with any rule in it, ours go first.
  const isOpen = /^-P FORWARD ACCEPT$/m.test(chain) && !/^-A FORWARD (?!.*litegix-fc-driver)/m.test(chain);
  if (isOpen) return;
  try {
    for (const rule of rules) if (!isThere(chain, rule)) await iptables(options, "-I", "FORWARD", ...rule);
  } catch (error) {
    options.signal?.throwIfAborted();
    throw new NetworkSetupError({ step: "letting VMs' packets pass iptables' FORWARD chain", cause: error as Error });
  }
}

/** With the last VM of any driver on this host. Whatever is left is harmless, so nothing fails. */
export async function closeForwarding(options: Options): Promise<void> {
  // A driver of another agent may take them with its last VM.
  allowed = false;
  if ((await readTaps()).size > 0) return;
  const chain = (await readChain(options)) ?? "";
  for (const rule of rules) {
    if (isThere(chain, rule)) await iptables(options, "-D", "FORWARD", ...rule).catch(() => undefined);
  }
  await distrustTaps(options);
}
