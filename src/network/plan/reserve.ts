// From what a job asks for to a plan: which kind of network, which addresses, which ports.
import { createHash } from "node:crypto";
import { requireNamespace } from "../apply/namespace.ts";
import { readNamespace } from "../apply/read-namespace.ts";
import { NetworkUnavailableError, PortClaimedError } from "../errors.ts";
import type { NetworkHost } from "../inspect/inspect-network.ts";
import { neighboursOf, type ReadPlans } from "../network.ts";
import { chooseLease, isTapName, readTaps } from "./address-pool.ts";
import type { EgressPolicy } from "./egress-policy.ts";
import { type GroupPort, guestPortOf, planNamespace } from "./namespace.ts";
import type { FloodLimits, NatPlan, NetworkPlan } from "./network-plan.ts";

export interface NetworkRequest {
  readonly taskName: string;
  readonly allocId: string;
  /** The allocation's; undefined: the default network. */
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
  /** Where this driver keeps its VMs: its rules are told from other drivers' by it. */
  readonly basePath: string;
  readonly readPlans: ReadPlans;
  readonly signal?: AbortSignal | undefined;
}

/** Plans that no record tells of yet. */
const reserved = new Set<NetworkPlan>();

/**
 * What the plan claims stays claimed until the result is disposed of, by when the VM's record must hold it. `plan` is
 * undefined where the allocation's namespace has loopback only. Fails with the errors of this folder.
 */
export async function reserveNetwork(options: PlanOptions): Promise<{ plan: NetworkPlan | undefined } & Disposable> {
  const plan = await planNetwork({
    ...options,
    readPlans: async () => [...(await options.readPlans()), ...reserved],
  });
  if (plan !== undefined) reserved.add(plan);
  return {
    plan,
    [Symbol.dispose]: () => {
      if (plan !== undefined) reserved.delete(plan);
    },
  };
}

/** Nothing is awaited between the last look at other plans and the answer: two starts can't choose the same. */
async function planNetwork(options: PlanOptions): Promise<NetworkPlan | undefined> {
  const { request, host, readPlans, signal } = options;
  const table = `litegix_${createHash("sha256").update(options.basePath).digest("hex").slice(0, 8)}`;
  const path = request.namespacePath;
  if (path === undefined) {
    const taps = await readTaps();
    return planNat(request, host, table, await readPlans(), taps);
  }
  if (!host.group.usable) throw new NetworkUnavailableError("group", host.group.reason);
  await requireNamespace(path);
  const facts = await readNamespace({ path, isOwnTap: isTapName, signal });
  if (facts === undefined) return undefined;
  return planNamespace({ ...request, path, facts, table, neighbours: await neighboursOf({ path }, readPlans) });
}

function planNat(
  request: NetworkRequest,
  host: NetworkHost,
  table: string,
  plans: readonly NetworkPlan[],
  taps: ReadonlySet<string>,
): NatPlan {
  if (!host.nat.usable) throw new NetworkUnavailableError("default", host.nat.reason);
  const { subnet, mtu } = host.nat;
  const others = plans.filter((plan) => plan.mode === "nat");
  const ports = request.ports
    .filter(({ label }) => request.named.includes(label))
    .map((port) => ({
      label: port.label,
      hostIp: port.hostIp === "0.0.0.0" ? "" : port.hostIp,
      hostPort: port.hostPort,
      guestPort: guestPortOf(port),
    }));
  for (const port of ports) {
    const holder = others.find((other) =>
      other.ports.some(({ hostIp, hostPort }) => hostIp === port.hostIp && hostPort === port.hostPort),
    );
    if (holder !== undefined) throw new PortClaimedError(port.label, holder.taskName);
    if (port.hostIp.includes(":")) {
      throw new NetworkUnavailableError(
        "default",
        `port ${port.label} is at ${port.hostIp}, and the default network has IPv4 only; use the group's mode = "bridge" for IPv6`,
      );
    }
  }
  const taken = new Set([...taps, ...others.map(({ tap }) => tap)]);
  const lease = chooseLease({ subnet, isTaken: ({ tap }) => taken.has(tap) });
  const { taskName, allocId, egress, limits } = request;
  return { mode: "nat", taskName, allocId, table, ...lease, mtu, egress, limits, ports };
}
