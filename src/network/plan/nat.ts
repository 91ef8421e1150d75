// From a task's `ports` to the plan of a VM in the default network.
import type { IpNetwork } from "../../system/ip.ts";
import { NetworkUnavailableError, PortClaimedError } from "../errors.ts";
import { chooseLease } from "./address-pool.ts";
import type { EgressPolicy, EgressRule } from "./egress-policy.ts";
import { type FloodLimits, type GroupPort, guestPortOf, type NatPlan } from "./network-plan.ts";

/** Fails with AddressesExhaustedError, NetworkUnavailableError or PortClaimedError. */
export function planNat(options: {
  subnet: IpNetwork;
  mtu: number;
  table: string;
  taskName: string;
  allocId: string;
  egress: EgressPolicy;
  hostAccess: readonly EgressRule[];
  limits: FloodLimits;
  forwardTo: readonly string[];
  ports: readonly GroupPort[];
  /** Checked: each is a label of `ports`. */
  named: readonly string[];
  /** The host's other VMs. */
  neighbours: readonly NatPlan[];
  /** The TAPs of any driver's VMs. */
  taps: ReadonlySet<string>;
}): NatPlan {
  const { subnet, mtu, table, taskName, allocId, egress, limits, named, neighbours, taps } = options;
  const [hostAccess, forwardTo] = [[...options.hostAccess], [...options.forwardTo]];
  const ports = options.ports
    .filter(({ label }) => named.includes(label))
    .map((port) => ({
      label: port.label,
      hostIp: port.hostIp === "0.0.0.0" ? "" : port.hostIp,
      hostPort: port.hostPort,
      guestPort: guestPortOf(port),
    }));
  for (const port of ports) {
    const holder = neighbours.find((neighbour) =>
      neighbour.ports.some(
        (theirs) => theirs.hostPort === port.hostPort && addressesOverlap(theirs.hostIp, port.hostIp),
      ),
    );
    if (holder !== undefined) throw new PortClaimedError({ label: port.label, taskName: holder.taskName });
    if (port.hostIp.includes(":")) {
      throw new NetworkUnavailableError({
        mode: "default",
        reason: `port ${port.label} is at ${port.hostIp}, and the default network has IPv4 only; use the group's mode = "bridge" for IPv6`,
      });
    }
  }
  const taken = new Set([...taps, ...neighbours.map(({ tap }) => tap)]);
  const lease = chooseLease({ subnet, isTaken: ({ tap }) => taken.has(tap) });
  return { mode: "nat", taskName, allocId, table, ...lease, mtu, egress, hostAccess, limits, ports, forwardTo };
}

/** Empty: all addresses of the host. */
const addressesOverlap = (one: string, other: string): boolean => one === other || one === "" || other === "";
