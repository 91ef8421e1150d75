// Other software's firewalls on the host's way between VMs and the outside. A packet must be accepted by every table, so rules
// of our own can't lift docker's FORWARD policy of "drop". As CNI's firewall plugin does, we put an accepting rule in front of
// that chain, and never touch another rule: two rules for all VMs, looked for before they are added.
import { ask } from "./run-steps.ts";

const comment = ["-m", "comment", "--comment", "litegix-fc-driver"];
/** `+` stands for the rest of a TAP's name. */
const rules: readonly (readonly string[])[] = [
  ["-i", "lg+", ...comment, "-j", "ACCEPT"],
  ["-o", "lg+", "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED,DNAT", ...comment, "-j", "ACCEPT"],
];

/** Does nothing where iptables is not used or lets packets pass anyway. Fails with CommandError. */
export async function allowForwarding(options: { signal?: AbortSignal | undefined }): Promise<void> {
  const place = { namespacePath: undefined, signal: options.signal };
  const iptables = async (...args: string[]): Promise<string> =>
    await ask({ ...place, argv: ["iptables", "-w", "5", ...args] });
  let chain: string;
  try {
    chain = await iptables("-S", "FORWARD");
  } catch {
    options.signal?.throwIfAborted();
    return;
  }
  // Whatever comes before the end of the chain may drop as well: with any rule in it, ours go first.
  const isOpen = /^-P FORWARD ACCEPT$/m.test(chain) && !/^-A FORWARD (?!.*litegix-fc-driver)/m.test(chain);
  if (isOpen) return;
  for (const rule of rules) {
    const found = chain
      .split("\n")
      .some((line) => line.includes("litegix-fc-driver") && line.includes(` ${rule[0]} lg+ `));
    if (!found) await iptables("-I", "FORWARD", ...rule);
  }
}
