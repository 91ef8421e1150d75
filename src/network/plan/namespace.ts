// From a group's network block and a task's `ports` to the plan of a VM in the allocation's namespace.
import { type IpNetwork, ipv4FromNumber, ipv4ToNumber } from "../../system/ip.ts";
import { AddressesExhaustedError, PortClaimedError } from "../errors.ts";
import type { NamespaceFacts } from "../host/read-namespace.ts";
import { leaseOf } from "./address-pool.ts";
import type { EgressPolicy, EgressRule } from "./egress-policy.ts";
import { type FloodLimits, type GroupPort, guestPortOf, type NamespacePlan } from "./network-plan.ts";

/** Link-local: only the allocation's namespace sees it, and no other software uses it. */
export const namespaceSubnet: IpNetwork = { version: 4, address: "169.254.230.0", prefixLength: 24 };
const maxVms = 63;

/** Nomad adds these labels for its Connect proxies, which run beside the VM. */
const isProxyLabel = (label: string): boolean => label.startsWith("connect-");

/** Fails with AddressesExhaustedError or PortClaimedError. */
export function planNamespace(options: {
  path: string;
  facts: NamespaceFacts;
  table: string;
  taskName: string;
  allocId: string;
  egress: EgressPolicy;
  hostAccess: readonly EgressRule[];
  limits: FloodLimits;
  hostNetworks: readonly string[];
  ports: readonly GroupPort[];
  /** Checked: each is a label of `ports`. */
  named: readonly string[];
  /** Ports on which the group's Connect proxy listens at 127.0.0.1. */
  upstreamPorts: readonly number[];
  neighbours: readonly NamespacePlan[];
}): NamespacePlan {
  const { facts, neighbours, ports, named } = options;
  for (const neighbour of neighbours) {
    const claimed = neighbour.ports.find(({ label }) => named.includes(label));
    if (claimed !== undefined) throw new PortClaimedError({ label: claimed.label, taskName: neighbour.taskName });
  }
  const index = Array.from({ length: maxVms }, (_, candidate) => candidate).find((candidate) =>
    neighbours.every((neighbour) => neighbour.index !== candidate),
  );
  if (index === undefined)
    throw new AddressesExhaustedError({ subnet: `the allocation's namespace, which holds ${maxVms} VMs` });
  const lease = leaseOf(ipv4FromNumber(ipv4ToNumber(namespaceSubnet.address) + index * 4 + 2));
  const own = ports.filter(({ label }) => named.includes(label));
  const others = neighbours.flatMap((neighbour) => neighbour.ports.map(({ label }) => label));
  const unnamed = ports.filter(
    ({ label }) => !named.includes(label) && !others.includes(label) && !isProxyLabel(label),
  );
  // The first VM takes the remaining ports if its task names none. A later VM, or one that names its ports, leaves them.
  const takesUnnamed = index === 0 && named.length === 0;
  const unnamedPorts = takesUnnamed ? unnamed.map(guestPortOf) : [];
  const inside = new Set([...own.map(guestPortOf), ...unnamedPorts]);
  const outside = [...ports.map(guestPortOf), ...options.upstreamPorts].filter((port) => !inside.has(port));
  return {
    mode: "namespace",
    taskName: options.taskName,
    allocId: options.allocId,
    table: options.table,
    ...lease,
    mtu: facts.mtu,
    egress: options.egress,
    hostAccess: [...options.hostAccess],
    limits: options.limits,
    path: options.path,
    index,
    device: facts.device,
    ipv4: facts.ipv4,
    ipv6: facts.ipv6,
    routes: [...facts.routes],
    ports: own.map((port) => ({ label: port.label, guestPort: guestPortOf(port) })),
    unnamedPorts,
    outsidePorts: [...new Set(outside)],
    hostPorts: ports.map(({ hostPort }) => hostPort).filter((port) => port > 0),
    hostNetworks: [...options.hostNetworks],
  };
}
