// The networks of a driver's VMs, of either kind: reserve, make the interface, open, detach, keep, and count dropped
// packets.
import * as v from "valibot";
import { KeyedTurns } from "../system/wait.ts";
import { RoutingRules } from "./apply/guest-routes.ts";
import { detachNamespace, openNamespace } from "./apply/namespace.ts";
import { detachNat, openNat } from "./apply/nat.ts";
import { NetworkSetupError } from "./errors.ts";
import { Forwarding } from "./firewalls/forward-chain.ts";
import { readHostAddresses, readUplinks } from "./host/read-host.ts";
import { ask, makeTap, moveTap } from "./host/tools.ts";
import { type HostFacts, restoreRules } from "./keep/restore-rules.ts";
import { byMode, type NetworkPlan, namespacePathOf, type PlanRecords, plansOf } from "./plan/network-plan.ts";
import { type ReservedNetwork, type ReserveOptions, reserveNetwork } from "./reserve.ts";
import { excessCounter, refusedCounter } from "./rules/egress.ts";
import { floodedCounter, guardCounter } from "./rules/guard.ts";

/** One for each base path: it knows which networks are being made, and lets changes of one namespace wait for each other. */
export class Networks {
  readonly #records: PlanRecords;
  readonly #reserved = new Set<NetworkPlan>();
  readonly #forwarding = new Forwarding();
  readonly #routing = new RoutingRules();
  readonly #turns = new KeyedTurns();
  readonly #applied = new Map<string, string>();

  constructor(records: PlanRecords) {
    this.#records = records;
  }

  /** Claims addresses and ports until the result is disposed of. Fails with the errors of src/network. */
  async reserve(options: ReserveOptions): Promise<ReservedNetwork> {
    return await reserveNetwork({ ...options, records: this.#records, reserved: this.#reserved });
  }

  /** Adds the rules, then lets the interface's frames pass. Fails with NetworkSetupError; the caller then detaches. */
  async open(options: { plan: NetworkPlan; signal?: AbortSignal | undefined }): Promise<void> {
    const { signal } = options;
    const records = this.#records;
    const forwarding = this.#forwarding;
    const routing = this.#routing;
    await this.#inTurn(namespacePathOf(options.plan), async () => {
      const host = await this.#hostFacts({ signal });
      await byMode(options.plan, {
        nat: (plan) => openNat({ plan, host, forwarding, routing, signal }),
        namespace: (plan) => openNamespace({ plan, records, host, signal }),
      });
    });
  }

  /** Idempotent. Fails with NetworkSetupError. */
  async detach(network: NetworkPlan): Promise<void> {
    const records = this.#records;
    const forwarding = this.#forwarding;
    const routing = this.#routing;
    await this.#inTurn(namespacePathOf(network), () =>
      byMode(network, {
        nat: (plan) => detachNat({ plan, records, forwarding, routing }),
        namespace: async (plan) => await detachNamespace({ plan, records, host: await this.#hostFacts({}) }),
      }),
    );
  }

  /** Restores rules that other software removed. Fails only if the records cannot be read or `signal` aborts. */
  async restore(options: { signal?: AbortSignal | undefined }): Promise<RestoredRules> {
    const records = this.#records;
    const applied = this.#applied;
    const paths = new Set((await records.plans()).map(namespacePathOf));
    const plans: NetworkPlan[] = [];
    const failures: Error[] = [];
    for (const path of paths) {
      try {
        const restore = async (): Promise<NetworkPlan[]> =>
          await restoreRules({ ...options, path, records, applied, host: await this.#hostFacts(options) });
        plans.push(...(await this.#inTurn(path, restore)));
      } catch (error) {
        options.signal?.throwIfAborted();
        failures.push(error as Error);
      }
    }
    return { plans, failures };
  }

  /** Restores the VMs' way through other software's firewalls. Fails with NetworkSetupError. */
  async keepForwarding(options: { signal?: AbortSignal | undefined }): Promise<void> {
    await this.#inTurn(undefined, async () => {
      const { uplinks } = await this.#hostFacts(options);
      await this.#forwarding.keep({ ...options, uplinks });
    });
  }

  /** Fails with NetworkSetupError. */
  async #hostFacts(options: { signal?: AbortSignal | undefined }): Promise<HostFacts> {
    try {
      const [plans, uplinks, addresses] = await Promise.all([
        this.#records.plans(),
        readUplinks(options),
        readHostAddresses(),
      ]);
      const named = plansOf("nat", plans).flatMap(({ forwardTo }) => forwardTo);
      const ports = plans.flatMap((plan) =>
        byMode(plan, {
          nat: (own) => own.ports.map(({ hostPort }) => hostPort),
          namespace: ({ hostPorts }) => hostPorts,
        }),
      );
      return {
        uplinks: [...new Set([...uplinks, ...named])].toSorted(),
        // The rules name the whole network of these.
        ipv4: addresses.ipv4.filter((address) => plansOf("nat", plans).every(({ gateway }) => gateway !== address)),
        ipv6: addresses.ipv6,
        publishedPorts: [...new Set(ports)].toSorted((a, b) => a - b),
      };
    } catch (error) {
      options.signal?.throwIfAborted();
      throw new NetworkSetupError({ step: "reading the host's addresses and routes", cause: error });
    }
  }

  /** One change at a time for each namespace, because each depends on the state that it finds. */
  async #inTurn<T>(namespacePath: string | undefined, work: () => Promise<T>): Promise<T> {
    return await this.#turns.take(namespacePath ?? "", work);
  }
}

export interface RestoredRules {
  /** The VMs whose rules were missing. */
  readonly plans: readonly NetworkPlan[];
  /** One for each namespace whose rules could not be read or restored: NetworkSetupError or CommandError. */
  readonly failures: readonly Error[];
}

/**
 * Makes the interface that the VMM needs to start. No frame passes it before `open`. Fails with TapTakenError or
 * NetworkSetupError.
 */
export async function makeInterface(options: { plan: NetworkPlan; signal?: AbortSignal | undefined }): Promise<void> {
  const { plan, signal } = options;
  const { tap, tapMac, mtu } = plan;
  await makeTap({ namespacePath: namespacePathOf(plan), tap, tapMac, mtu, signal });
}

/**
 * Moves the interface to the plan's namespace from that of a VMM that has opened it. No frame passes it before `open`. Fails with
 * TapTakenError or NetworkSetupError.
 */
export async function bringInterfaceHome(options: {
  plan: NetworkPlan;
  /** The file of the namespace that it is in. */
  away: string;
  signal?: AbortSignal | undefined;
}): Promise<void> {
  const { plan, away, signal } = options;
  await moveTap({ namespacePath: away, to: namespacePathOf(plan), tap: plan.tap, signal });
}

const countersSchema = v.object({
  nftables: v.array(
    v.looseObject({ counter: v.optional(v.object({ name: v.string(), packets: v.number(), bytes: v.number() })) }),
  ),
});

export interface NetworkCounts {
  /** Connections that the egress policy refused. */
  readonly refused: number;
  /** Frames whose source address is not the VM's. */
  readonly spoofed: number;
  /** Packets and connections above the limits. */
  readonly flooded: number;
  /** Packets that would have begun a connection beyond the VM's number. */
  readonly excess: number;
}

/** Counts since the rules were added. Fails with CommandError. */
export async function readCounts(options: {
  plan: NetworkPlan;
  signal?: AbortSignal | undefined;
}): Promise<NetworkCounts> {
  const { plan, signal } = options;
  const text = await ask({
    namespacePath: namespacePathOf(plan),
    signal,
    argv: ["nft", "-j", "list", "counters"],
  });
  const { nftables } = v.parse(countersSchema, JSON.parse(text));
  const packets = (name: string): number =>
    nftables.reduce((sum, { counter }) => (counter?.name === name ? sum + counter.packets : sum), 0);
  return {
    refused: packets(refusedCounter(plan)),
    spoofed: packets(guardCounter(plan)),
    flooded: packets(floodedCounter(plan)),
    excess: packets(excessCounter(plan)),
  };
}
