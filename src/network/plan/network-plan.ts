// What a VM's record holds of its network: enough to make the rules again, and to take everything away.
import * as v from "valibot";
import { egressPolicySchema } from "./egress-policy.ts";

const port = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65_535));
const address = v.pipe(v.string(), v.ip());
const mac = v.pipe(v.string(), v.regex(/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/));
/** Goes into rules and command lines as it is. */
const name = v.pipe(v.string(), v.regex(/^[a-zA-Z][a-zA-Z0-9_]{0,30}$/));

const rate = v.pipe(v.number(), v.integer(), v.minValue(1));

/** What a VM may send a second; absent: as much as it can. */
const floodLimitsSchema = v.object({ packets: v.optional(rate), connections: v.optional(rate) });

export type FloodLimits = v.InferOutput<typeof floodLimitsSchema>;

const common = {
  taskName: v.string(),
  allocId: v.string(),
  /** Of nftables, of this driver's own. */
  table: name,
  tap: name,
  tapMac: mac,
  guestMac: mac,
  /** The TAP's and the guest's ends of a /30. */
  gateway: address,
  address,
  mtu: v.number(),
  egress: egressPolicySchema,
  /** Absent in records of a driver that knew none. */
  limits: v.optional(floodLimitsSchema),
};

const sharedAddress = v.object({ address, prefixLength: v.number() });

export const networkPlanSchema = v.variant("mode", [
  v.object({
    ...common,
    mode: v.literal("nat"),
    /** An empty host address stands for all of the host's. */
    ports: v.array(
      v.object({ label: v.string(), hostIp: v.union([v.literal(""), address]), hostPort: port, guestPort: port }),
    ),
  }),
  v.object({
    ...common,
    mode: v.literal("namespace"),
    path: v.string(),
    /** Which of the namespace's VMs: the lowest gets what nobody names. */
    index: v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(62)),
    /** The allocation's interface, whose addresses the VM shares. */
    device: v.pipe(v.string(), v.regex(/^[^\s"/]{1,15}$/)),
    ipv4: v.optional(sharedAddress),
    ipv6: v.optional(sharedAddress),
    /** Where the namespace has routes to: CIDR, or an address alone. */
    routes: v.array(v.string()),
    /** Of the group's network block: those that this task names. */
    ports: v.array(v.object({ label: v.string(), guestPort: port })),
    /** Those that nobody named when this VM started. */
    unnamedPorts: v.array(port),
    /** At which other tasks listen. */
    outsidePorts: v.array(port),
  }),
]);

export type NetworkPlan = v.InferOutput<typeof networkPlanSchema>;
export type NatPlan = Extract<NetworkPlan, { mode: "nat" }>;
export type NamespacePlan = Extract<NetworkPlan, { mode: "namespace" }>;
