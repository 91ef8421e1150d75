// From a group's network block and a task's `ports` to the plan of a VM in the allocation's namespace.
import { type IpNetwork, ipv4FromNumber, ipv4ToNumber } from "../../system/ip-address.ts";
import type { NamespaceFacts } from "../apply/read-namespace.ts";
import { AddressesExhaustedError, PortClaimedError } from "../errors.ts";
import { leaseOf } from "./address-pool.ts";
import type { EgressPolicy } from "./egress-policy.ts";
import type { FloodLimits, NamespacePlan } from "./network-plan.ts";

/** Link-local, so that it is nobody else's; seen in the allocation's namespace only. */
export const namespaceSubnet: IpNetwork = { version: 4, address: "169.254.230.0", prefixLength: 24 };
const maximumVms = 63;

/** A port of the group's network block. */
export interface GroupPort {
  readonly label: string;
  readonly hostIp: string;
  readonly hostPort: number;
  /** 0: the same as the host's. */
  readonly to: number;
}

export const guestPortOf = (port: GroupPort): number => (port.to > 0 ? port.to : port.hostPort);

/** Labels of Nomad's own for its Connect proxies, which run beside the VM. */
const isProxyLabel = (label: string): boolean => label.startsWith("connect-");

export function planNamespace(options: {
  path: string;
  facts: NamespaceFacts;
  table: string;
  taskName: string;
  allocId: string;
  egress: EgressPolicy;
  limits: FloodLimits;
  ports: readonly GroupPort[];
  /** Checked: each is a label of `ports`. */
  named: readonly string[];
  /** Ports of 127.0.0.1 that are the group's Connect proxy's. */
  upstreamPorts: readonly number[];
  neighbours: readonly NamespacePlan[];
}): NamespacePlan {
  const { facts, neighbours, ports, named } = options;
  for (const neighbour of neighbours) {
    const claimed = neighbour.ports.find(({ label }) => named.includes(label));
    if (claimed !== undefined) throw new PortClaimedError(claimed.label, neighbour.taskName);
  }
  const index = Array.from({ length: maximumVms }, (_, candidate) => candidate).find((candidate) =>
    neighbours.every((neighbour) => neighbour.index !== candidate),
  );
  if (index === undefined)
    throw new AddressesExhaustedError(`the allocation's namespace, which holds ${maximumVms} VMs`);
  const lease = leaseOf(ipv4FromNumber(ipv4ToNumber(namespaceSubnet.address) + index * 4 + 2));
  const own = ports.filter(({ label }) => named.includes(label));
  const others = neighbours.flatMap((neighbour) => neighbour.ports.map(({ label }) => label));
  const unnamed = ports.filter(
    ({ label }) => !named.includes(label) && !others.includes(label) && !isProxyLabel(label),
  );
  // Without names the first VM takes what is left; a later one, or one that names its ports, leaves it to the others.
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
    limits: options.limits,
    path: options.path,
    index,
    device: facts.device,
    ...(facts.ipv4 === undefined ? {} : { ipv4: facts.ipv4 }),
    ...(facts.ipv6 === undefined ? {} : { ipv6: facts.ipv6 }),
    routes: [...facts.routes],
    ports: own.map((port) => ({ label: port.label, guestPort: guestPortOf(port) })),
    unnamedPorts,
    outsidePorts: [...new Set(outside)],
  };
}
