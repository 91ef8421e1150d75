// Lets VMs' packets pass other software's firewalls. Every table must accept a packet, so the driver's own table cannot undo
// docker's FORWARD policy of "drop". While a VM exists, one rule in that chain jumps to a chain of the driver's own, which accepts
// VMs' packets towards the host's uplinks. The jump stands behind all rules of others, so that an operator's drops come first; only
// the policy, and a last rule that drops everything, come after it. The driver never touches another's rule.

import { NetworkSetupError } from "../errors.ts";
import { ask } from "../host/tools.ts";
import { readTaps } from "../plan/address-pool.ts";
import { distrustTaps, trustTaps } from "./firewalld.ts";

const ownChain = "litegix-forward";
const comment = "litegix-fc-driver";
const jump = ["-m", "comment", "--comment", comment, "-j", ownChain];
const passing = ["-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED,DNAT"];
/** Docker promises operators that their rules in this chain come before those that accept. */
const operatorsChain = "DOCKER-USER";

interface Options {
  readonly signal?: AbortSignal | undefined;
}

interface OpenOptions extends Options {
  /** The interfaces at which VMs' packets may leave. */
  readonly uplinks: readonly string[];
}

async function iptables(options: Options, ...args: string[]): Promise<string> {
  return await ask({ namespacePath: undefined, signal: options.signal, argv: ["iptables", "-w", "5", ...args] });
}

/** The chain's lines, its policy first; undefined if it is not there, or the host does not have iptables. */
async function readChain(options: Options, chain: string): Promise<string[] | undefined> {
  try {
    return (await iptables(options, "-S", chain)).split("\n").filter((line) => line !== "");
  } catch {
    options.signal?.throwIfAborted();
    return undefined;
  }
}

const isOurs = (rule: string): boolean => rule.includes(comment);
const isJump = (rule: string): boolean => isOurs(rule) && rule.endsWith(`-j ${ownChain}`);
/** Drops or rejects everything that the rules before it let through. */
const isCatchAll = (rule: string): boolean =>
  /^-A FORWARD(?: -m comment --comment (?:"[^"]*"|\S+))? -j (?:DROP|REJECT)\b/.test(rule);

/** The own chain's rules. `+` matches the rest of a TAP's name. */
function ownRules(uplinks: readonly string[], hasOperatorsChain: boolean): string[][] {
  const directions = ["-i", "-o"] as const;
  return [
    ...(hasOperatorsChain ? directions.map((direction) => [direction, "lg+", "-j", operatorsChain]) : []),
    // Answers, published ports of VMs, and VMs' connections to ports that other software publishes.
    ...directions.map((direction) => [direction, "lg+", ...passing, "-j", "ACCEPT"]),
    ...uplinks.map((uplink) => ["-i", "lg+", "-o", uplink, "-j", "ACCEPT"]),
  ];
}

/** Lets VMs' packets pass. Each method must be called in a turn of the host's namespace. */
export class Forwarding {
  /** The uplinks that are open. Spares every VM's start a look at the host's chain and zones. */
  #open: string | undefined;

  /** Called when a VM starts. Fails with NetworkSetupError. */
  async open(options: OpenOptions): Promise<void> {
    const wanted = options.uplinks.join();
    if (this.#open === wanted) return;
    await addRules(options);
    // Set before firewalld answers: it is asked once, because the other starts wait for this one.
    this.#open = wanted;
    try {
      await trustTaps(options);
    } catch {
      // firewalld has its table but does not answer; it may still be starting. `keep` tries again and reports.
      options.signal?.throwIfAborted();
    }
  }

  /** Restores rules and membership that something removed while VMs exist. Fails with NetworkSetupError. */
  async keep(options: OpenOptions): Promise<void> {
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
    this.#open = undefined;
    if ((await readTaps()).size > 0) return;
    await removeOurs(options, () => true).catch(() => undefined);
    if ((await readChain(options, ownChain)) !== undefined) {
      await iptables(options, "-F", ownChain).catch(() => undefined);
      await iptables(options, "-X", ownChain).catch(() => undefined);
    }
    await distrustTaps(options);
  }
}

/** Does nothing if the chain lets every packet pass. */
async function addRules(options: OpenOptions): Promise<void> {
  const [chain, operators] = await Promise.all([readChain(options, "FORWARD"), readChain(options, operatorsChain)]);
  if (chain === undefined) return;
  const [policy, ...rules] = chain;
  const isOpen = policy === "-P FORWARD ACCEPT" && operators === undefined && rules.every(isOurs);
  if (isOpen) return;
  try {
    await fillOwnChain(options, ownRules(options.uplinks, operators !== undefined));
    await placeJump(options, rules);
  } catch (error) {
    options.signal?.throwIfAborted();
    throw new NetworkSetupError({ step: "letting VMs' packets pass iptables' FORWARD chain", cause: error as Error });
  }
}

/** Adds what is missing. A rule too many stays: the driver's own table refuses what it would let through. */
async function fillOwnChain(options: Options, wanted: readonly (readonly string[])[]): Promise<void> {
  const there = await readChain(options, ownChain);
  if (there === undefined) await iptables(options, "-N", ownChain);
  const isThere = (rule: readonly string[]): boolean => there?.includes(`-A ${ownChain} ${rule.join(" ")}`) ?? false;
  const missing = wanted.filter((rule) => !isThere(rule));
  for (const rule of missing) {
    const isDocker = rule.includes(operatorsChain);
    await iptables(options, ...(isDocker ? ["-I", ownChain, "1"] : ["-A", ownChain]), ...rule);
  }
}

/** `rules`: the chain FORWARD without its policy. The new jump is there before an old one goes. */
async function placeJump(options: Options, rules: readonly string[]): Promise<void> {
  const catchAll = rules.findIndex((rule) => !isOurs(rule) && isCatchAll(rule));
  const end = catchAll === -1 ? rules.length : catchAll;
  const ours = rules.flatMap((rule, index) => (isOurs(rule) ? [index] : []));
  const [only, ...more] = ours;
  if (only !== undefined && more.length === 0 && only === end - 1 && isJump(rules[only] ?? "")) return;
  // Positions count from 1.
  await iptables(options, "-I", "FORWARD", `${end + 1}`, ...jump);
  await removeOurs(options, (position) => position !== end + 1);
}

/** Removes the driver's rules of the chain FORWARD at the positions that `isMeant` accepts. */
async function removeOurs(options: Options, isMeant: (position: number) => boolean): Promise<void> {
  const [, ...rules] = (await readChain(options, "FORWARD")) ?? [];
  const positions = rules.flatMap((rule, index) => (isOurs(rule) && isMeant(index + 1) ? [index + 1] : []));
  for (const position of positions.toReversed()) await iptables(options, "-D", "FORWARD", `${position}`);
}
