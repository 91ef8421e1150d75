// firewalld rejects what it forwards for an interface of no zone, and no rule of another table lifts that: VMs' interfaces
// become members of its zone "trusted", as podman's addresses do, for as long as a VM is.
import { ask } from "../apply/tools.ts";

interface Options {
  readonly signal?: AbortSignal | undefined;
}

/** Its bus may hang, and networks of other VMs wait for this one's. */
const timeoutMs = 10_000;

/** firewalld's word for every TAP, and nftables' for the same. */
const taps = "lg+";
const inRules = '"lg*"';

async function firewallCmd(options: Options, ...args: string[]): Promise<string> {
  const deadline = AbortSignal.timeout(timeoutMs);
  return await ask({
    namespacePath: undefined,
    signal: options.signal === undefined ? deadline : AbortSignal.any([options.signal, deadline]),
    argv: ["firewall-cmd", ...args, "--zone=trusted"],
  });
}

/** Whether firewalld, if it is here with rules of nftables', knows the TAPs in any zone. With iptables' rules it needs nothing. */
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

/** An operator's choice of another zone stays. Fails with CommandError. */
export async function trustTaps(options: Options): Promise<void> {
  if ((await readZone(options)) === "unknown") await firewallCmd(options, `--add-interface=${taps}`);
}

/** Not what an operator made permanent. Whatever is left is harmless, so nothing fails. */
export async function distrustTaps(options: Options): Promise<void> {
  if ((await readZone(options)) !== "known") return;
  const isPermanent = await firewallCmd(options, "--permanent", `--query-interface=${taps}`).then(
    () => true,
    () => false,
  );
  if (!isPermanent) await firewallCmd(options, `--remove-interface=${taps}`).catch(() => undefined);
}
