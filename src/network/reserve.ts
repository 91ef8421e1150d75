// From a job's request to a plan: the kind of network, the addresses and the ports.
import { createHash } from "node:crypto";
import { NetworkUnavailableError } from "./errors.ts";
import { readNamespace, requireNamespace } from "./host/read-namespace.ts";
import type { NetworkHost } from "./inspect/inspect-network.ts";
import { isTapName, readTaps } from "./plan/address-pool.ts";
import type { EgressPolicy } from "./plan/egress-policy.ts";
import { planNamespace } from "./plan/namespace.ts";
import { planNat } from "./plan/nat.ts";
import {
  type FloodLimits,
  type GroupPort,
  type NetworkPlan,
  neighboursOf,
  type PlanRecords,
  plansOf,
} from "./plan/network-plan.ts";

export interface NetworkRequest {
  readonly taskName: string;
  readonly allocId: string;
  /** The allocation's namespace; undefined: the default network. */
  readonly namespacePath: string | undefined;
  readonly ports: readonly GroupPort[];
  /** Labels that the task's `ports` names; each is one of `ports`. */
  readonly named: readonly string[];
  readonly upstreamPorts: readonly number[];
  readonly egress: EgressPolicy;
  readonly limits: FloodLimits;
}

export interface PlanOptions {
  readonly request: NetworkRequest;
  readonly host: NetworkHost;
  /** The directory of this driver's VMs. The names of its tables are made from it. */
  readonly basePath: string;
  readonly records: PlanRecords;
  readonly signal?: AbortSignal | undefined;
}

/** Plans that no record holds yet. Host ports and TAPs are the host's: all drivers of this process share one set. */
const reserved = new Set<NetworkPlan>();

/**
 * Claims the plan's addresses and ports until the result is disposed of; the VM's record must hold the plan before that.
 * `plan` is undefined if the allocation's namespace has loopback only. Fails with the errors of src/network.
 */
export async function reserveNetwork(options: PlanOptions): Promise<{ plan: NetworkPlan | undefined } & Disposable> {
  const plan = await planNetwork({
    ...options,
    records: { plans: async () => [...(await options.records.plans()), ...reserved] },
  });
  if (plan !== undefined) reserved.add(plan);
  return {
    plan,
    [Symbol.dispose]: () => {
      if (plan !== undefined) reserved.delete(plan);
    },
  };
}

/** Nothing is awaited between the last look at other plans and the answer, so that two starts cannot choose the same. */
async function planNetwork(options: PlanOptions): Promise<NetworkPlan | undefined> {
  const { request, host, records, signal } = options;
  const table = `litegix_${createHash("sha256").update(options.basePath).digest("hex").slice(0, 8)}`;
  const path = request.namespacePath;
  if (path === undefined) {
    if (!host.nat.usable) throw new NetworkUnavailableError({ mode: "default", reason: host.nat.reason });
    const { subnet, mtu } = host.nat;
    const taps = await readTaps();
    return planNat({ ...request, subnet, mtu, table, taps, neighbours: plansOf("nat", await records.plans()) });
  }
  if (!host.group.usable) throw new NetworkUnavailableError({ mode: "group", reason: host.group.reason });
  await requireNamespace(path);
  const facts = await readNamespace({ path, isOwnTap: isTapName, signal });
  if (facts === undefined) return undefined;
  return planNamespace({ ...request, path, facts, table, neighbours: await neighboursOf({ path }, records) });
}
