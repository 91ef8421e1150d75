// The plan of a VM's network. The VM's record holds it: it suffices to make the rules again, and to remove everything.
import * as v from "valibot";
import { egressPolicySchema, egressRuleSchema } from "./egress-policy.ts";

const port = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65_535));
const address = v.pipe(v.string(), v.ip());
const mac = v.pipe(v.string(), v.regex(/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/));
/** Rules and command lines contain it unescaped. */
const name = v.pipe(v.string(), v.regex(/^[a-zA-Z][a-zA-Z0-9_]{0,30}$/));

const rate = v.pipe(v.number(), v.integer(), v.minValue(1));

/** An absent field means no limit. */
const floodLimitsSchema = v.object({
  /** Packets that a VM may send, and connections that it may open, per second. */
  packets: v.optional(rate),
  connections: v.optional(rate),
  /** Connections that the VM may have at a time, in both directions. */
  open: v.optional(rate),
});

export type FloodLimits = v.InferOutput<typeof floodLimitsSchema>;

const common = {
  taskName: v.string(),
  allocId: v.string(),
  /** The name of the driver's tables in nftables. */
  table: name,
  tap: name,
  tapMac: mac,
  guestMac: mac,
  /** The addresses of the TAP and of the guest in a /30. */
  gateway: address,
  address,
  mtu: v.number(),
  egress: egressPolicySchema,
  /**
   * The host's own services that the VM may reach, if its policy lets it. Published ports are not among them. Absent in the
   * record of an older driver: none.
   */
  hostAccess: v.optional(v.array(egressRuleSchema)),
  /** Absent if the plugin's config sets none. */
  limits: v.optional(floodLimitsSchema),
};

const interfaceName = v.pipe(v.string(), v.regex(/^[^\s"/]{1,15}$/));

const sharedAddress = v.object({ address, prefixLength: v.number() });

export const networkPlanSchema = v.variant("mode", [
  v.object({
    ...common,
    mode: v.literal("nat"),
    /** An empty `hostIp` means all addresses of the host. */
    ports: v.array(
      v.object({ label: v.string(), hostIp: v.union([v.literal(""), address]), hostPort: port, guestPort: port }),
    ),
    /** Interfaces of the host, beside those with a default route, to which the VM's packets may leave. */
    forwardTo: v.optional(v.array(interfaceName), []),
  }),
  v.object({
    ...common,
    mode: v.literal("namespace"),
    path: v.string(),
    /** The VM's number in the namespace. The VM with the lowest gets the ports that no task names. */
    index: v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(62)),
    /** The allocation's interface, whose addresses the VM shares. */
    device: interfaceName,
    ipv4: v.optional(sharedAddress),
    ipv6: v.optional(sharedAddress),
    /** Destinations of the namespace's routes: CIDRs or addresses. */
    routes: v.array(v.string()),
    /** The ports of the group's network block that this task names. */
    ports: v.array(v.object({ label: v.string(), guestPort: port })),
    /** The ports that no task named when this VM started. */
    unnamedPorts: v.array(port),
    /** Ports on which other tasks listen. */
    outsidePorts: v.array(port),
    /** The host's ports that Nomad forwards to this namespace. */
    hostPorts: v.optional(v.array(port), []),
    /** IPv4 networks with addresses of the host, beside those that it has always: the default network of VMs. */
    hostNetworks: v.optional(v.array(v.pipe(v.string(), v.regex(/^[0-9.]+\/\d+$/))), []),
  }),
]);

export type NetworkPlan = v.InferOutput<typeof networkPlanSchema>;
type Mode = NetworkPlan["mode"];
type PlanOf<M extends Mode> = Extract<NetworkPlan, { mode: M }>;
/** The default network: an address of the VM's own, translated to the host's. */
export type NatPlan = PlanOf<"nat">;
/** The allocation's network namespace, whose address the VM shares. */
export type NamespacePlan = PlanOf<"namespace">;

/** Calls the function for the plan's mode. */
export function byMode<T>(plan: NetworkPlan, table: { readonly [M in Mode]: (plan: PlanOf<M>) => T }): T {
  return plan.mode === "nat" ? table.nat(plan) : table.namespace(plan);
}

export const plansOf = <M extends Mode>(mode: M, plans: readonly NetworkPlan[]): PlanOf<M>[] =>
  plans.filter((plan): plan is PlanOf<M> => plan.mode === mode);

/** The file of the network namespace that the VM's TAP is in; undefined: the driver's own namespace. */
export const namespacePathOf = (plan: NetworkPlan): string | undefined =>
  byMode(plan, { nat: () => undefined, namespace: ({ path }) => path });

/** The addresses and ports of the host that lead to the VM, TCP and UDP alike; "0.0.0.0" is all addresses of the host. */
export function publishedPorts(plan: NetworkPlan): { readonly address: string; readonly port: number }[] {
  return byMode(plan, {
    nat: ({ ports }) => {
      const places = ports.map(({ hostIp, hostPort }) => ({
        address: hostIp === "" ? "0.0.0.0" : hostIp,
        port: hostPort,
      }));
      // All addresses include each one.
      const everywhere = new Set(places.filter(({ address }) => address === "0.0.0.0").map(({ port }) => port));
      const all = [...everywhere].map((port) => ({ address: "0.0.0.0", port }));
      return [...all, ...places.filter(({ port }) => !everywhere.has(port))];
    },
    // Nomad's bridge publishes them.
    namespace: () => [],
  });
}

/** A port of the group's network block. */
export interface GroupPort {
  readonly label: string;
  readonly hostIp: string;
  readonly hostPort: number;
  /** 0: the same as the host's. */
  readonly to: number;
}

export const guestPortOf = (port: GroupPort): number => (port.to > 0 ? port.to : port.hostPort);

/** The part of the VMs' records that a network needs. */
export interface PlanRecords {
  /** The plans of all VMs of this driver. */
  plans(): Promise<readonly NetworkPlan[]>;
}

/** The plans of the namespace's other VMs. */
export async function neighboursOf(
  plan: { readonly path: string; readonly tap?: string },
  records: PlanRecords,
): Promise<NamespacePlan[]> {
  const plans = plansOf("namespace", await records.plans());
  return plans.filter((other) => other.path === plan.path && other.tap !== plan.tap);
}
