// firewalld rejects forwarded packets of an interface without a zone, and a rule in another table cannot undo that. The driver
// therefore adds the VMs' interfaces to the zone "trusted", as podman does with its addresses, while a VM exists.
import { ask } from "../host/tools.ts";

interface Options {
  readonly signal?: AbortSignal | undefined;
}

/** firewalld's bus may hang, and the networks of other VMs wait for this call. */
const timeoutMs = 60_000;

/** A pattern for every TAP, first as firewalld writes it, then as nftables does. */
const taps = "lg+";
const inRules = '"lg*"';

async function firewallCmd(options: Options, ...args: string[]): Promise<string> {
  const argv = ["firewall-cmd", ...args, "--zone=trusted"] as const;
  return await ask({ ...options, namespacePath: undefined, timeoutMs, argv });
}

/** Whether some zone of firewalld has the TAPs. "absent": it does not run, or it uses iptables and needs nothing. */
async function readZone(options: Options): Promise<"absent" | "unknown" | "known"> {
  try {
    const table = await ask({
      ...options,
      namespacePath: undefined,
      argv: ["nft", "list", "table", "inet", "firewalld"],
    });
    return table.includes(`iifname ${inRules}`) ? "known" : "unknown";
  } catch {
    options.signal?.throwIfAborted();
    return "absent";
  }
}

/** Does nothing if the operator has put the TAPs into another zone. Fails with CommandError. */
export async function trustTaps(options: Options): Promise<void> {
  if ((await readZone(options)) === "unknown") await firewallCmd(options, `--add-interface=${taps}`);
}

/** Keeps an operator's permanent membership. Never fails: a leftover membership is harmless. */
export async function distrustTaps(options: Options): Promise<void> {
  if ((await readZone(options)) !== "known") return;
  const isPermanent = await firewallCmd(options, "--permanent", `--query-interface=${taps}`).then(
    () => true,
    () => false,
  );
  if (!isPermanent) await firewallCmd(options, `--remove-interface=${taps}`).catch(() => undefined);
}
