// From a job's request to a plan: the kind of network, the addresses and the ports.
import { createHash } from "node:crypto";
import { networkText } from "../system/ip.ts";
import { NetworkUnavailableError } from "./errors.ts";
import { readNamespace, requireNamespace } from "./host/read-namespace.ts";
import type { NetworkHost } from "./inspect/inspect-network.ts";
import { isTapName, readTaps } from "./plan/address-pool.ts";
import type { EgressPolicy, EgressRule } from "./plan/egress-policy.ts";
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
  /** The host's own services that the VM may reach. */
  readonly hostAccess: readonly EgressRule[];
  readonly limits: FloodLimits;
  /** Interfaces of the host, beside those with a default route, to which VMs of the default network may send. */
  readonly forwardTo: readonly string[];
}

export interface ReserveOptions {
  readonly request: NetworkRequest;
  readonly host: NetworkHost;
  /** The directory of this driver's VMs. The names of its tables are made from it. */
  readonly basePath: string;
  readonly signal?: AbortSignal | undefined;
}

/** The VM's record must hold the plan before this is disposed of. */
export type ReservedNetwork = {
  /** Undefined if the allocation's namespace has loopback only. */
  readonly plan: NetworkPlan | undefined;
} & Disposable;

/**
 * Plans a network, and keeps its addresses and ports in `reserved` until the result is disposed of. `reserved`: the plans that
 * no record holds yet. Fails with the errors of src/network.
 */
export async function reserveNetwork(
  options: ReserveOptions & { records: PlanRecords; reserved: Set<NetworkPlan> },
): Promise<ReservedNetwork> {
  const { records, reserved } = options;
  const readPlans = async () => [...(await records.plans()), ...reserved];
  const plan = await planNetwork({
    ...options,
    records: { plans: readPlans },
    claim: (claimed) => reserved.add(claimed),
  });
  return {
    plan,
    [Symbol.dispose]: () => {
      if (plan !== undefined) reserved.delete(plan);
    },
  };
}

/** Awaits nothing between its last look at the other plans and `claim`, so that two starts cannot choose the same. */
async function planNetwork(
  options: ReserveOptions & { records: PlanRecords; claim: (plan: NetworkPlan) => void },
): Promise<NetworkPlan | undefined> {
  const { request, host, records, claim, signal } = options;
  const table = `litegix_${createHash("sha256").update(options.basePath).digest("hex").slice(0, 8)}`;
  const path = request.namespacePath;
  if (path === undefined) {
    if (!host.nat.usable) throw new NetworkUnavailableError({ mode: "default", reason: host.nat.reason });
    const { subnet, mtu } = host.nat;
    const taps = await readTaps();
    const neighbours = plansOf("nat", await records.plans());
    const plan = planNat({ ...request, subnet, mtu, table, taps, neighbours });
    claim(plan);
    return plan;
  }
  if (!host.group.usable) throw new NetworkUnavailableError({ mode: "group", reason: host.group.reason });
  await requireNamespace(path);
  const facts = await readNamespace({ path, isOwnTap: isTapName, signal });
  if (facts === undefined) return undefined;
  const neighbours = await neighboursOf({ path }, records);
  const hostNetworks = host.nat.usable ? [networkText(host.nat.subnet)] : [];
  const plan = planNamespace({ ...request, path, facts, table, neighbours, hostNetworks });
  claim(plan);
  return plan;
}
