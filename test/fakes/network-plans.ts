// Network plans for tests that start no VM.
import { leaseOf } from "../../src/network/plan/address-pool.ts";
import { type EgressPolicy, metadataFloor, parseEgressRule } from "../../src/network/plan/egress-policy.ts";
import type { NamespacePlan, NatPlan } from "../../src/network/plan/network-plan.ts";

export const openPolicy: EgressPolicy = { default: "allow", floor: metadataFloor([]), deny: [], allow: [] };

/** Each list has rules in different forms; the default refuses everything else. */
export const strictPolicy: EgressPolicy = {
  default: "deny",
  floor: ["10.99.0.1/32:5002/tcp"].map(parseEgressRule),
  deny: ["10.1.2.0/24", "[fd00:1::/64]:53/udp"].map(parseEgressRule),
  allow: ["10.1.0.0/16:5432/tcp", "0.0.0.0/0:1024-65535", "fd00::/8"].map(parseEgressRule),
};

export const natPlan = (facts: Partial<NatPlan> = {}): NatPlan => ({
  mode: "nat",
  taskName: "web",
  allocId: "a",
  table: "litegix_test",
  ...leaseOf("10.207.31.6"),
  mtu: 1500,
  egress: openPolicy,
  hostAccess: [],
  ports: [],
  forwardTo: [],
  ...facts,
});

/** The only VM of a group with IPv4. */
export const namespacePlan = (facts: Partial<NamespacePlan> = {}): NamespacePlan => ({
  mode: "namespace",
  taskName: "web",
  allocId: "a",
  table: "litegix_test",
  ...leaseOf("169.254.230.2"),
  mtu: 1500,
  egress: openPolicy,
  hostAccess: [],
  path: "/run/netns/a",
  index: 0,
  device: "eth0",
  ipv4: { address: "172.26.64.2", prefixLength: 20 },
  routes: ["0.0.0.0/0", "172.26.64.0/20"],
  ports: [],
  unnamedPorts: [],
  outsidePorts: [],
  hostPorts: [],
  hostNetworks: [],
  ...facts,
});
