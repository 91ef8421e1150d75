// The `network` block of the plugin's config: where VMs' addresses come from, and what no job may reach.
import type { EgressRule } from "../../../network/plan/egress-policy.ts";
import type { FloodLimits } from "../../../network/plan/network-plan.ts";
import { type IpNetwork, parseNetwork } from "../../../system/ip.ts";
import { ConfigError } from "../../errors.ts";
import { attr, block, type NamedSpec, object } from "../hcl-spec.ts";
import { egressRules } from "../task/network.ts";
import { asConfigMap, type ConfigMap, optionalBoolean, optionalInteger, optionalString } from "../values.ts";

export interface PluginNetworkSettings {
  /** Undefined: one that overlaps with no route of the host. */
  readonly subnet: IpNetwork | undefined;
  readonly allowMetadata: boolean;
  /** Refused before a job's own rules are looked at. */
  readonly egressDeny: readonly EgressRule[];
  /** Of each VM. */
  readonly limits: FloodLimits;
}

/** Far beyond what a workload sends that is no flood: packets are as large as the guest's kernel makes them, up to 64 KiB. */
const usualRates = { packet_rate: 200_000, connection_rate: 1_000 } as const;
const largestRate = 10_000_000;

export const pluginNetworkSchema: NamedSpec = block(
  "network",
  object(
    attr("subnet", "string"),
    attr("allow_metadata", "bool"),
    attr("egress_deny", "list(string)"),
    attr("packet_rate", "any"),
    attr("connection_rate", "any"),
  ),
);

const longestPrefix = 28;
const shortestPrefix = 8;

/** Fails with ConfigError. */
export function parsePluginNetwork(config: ConfigMap): PluginNetworkSettings {
  const map = asConfigMap(config["network"]);
  return {
    subnet: subnet(map),
    allowMetadata: optionalBoolean(map, "allow_metadata") ?? false,
    egressDeny: egressRules(map, "network", "egress_deny"),
    limits: { packets: rate(map, "packet_rate"), connections: rate(map, "connection_rate") },
  };
}

/** Undefined for 0: no limit. */
function rate(map: ConfigMap, key: keyof typeof usualRates): number | undefined {
  const value =
    optionalInteger(map, key, { minimum: 0, maximum: largestRate, unit: "a second, 0 for no limit," }) ??
    usualRates[key];
  return value === 0 ? undefined : value;
}

function subnet(map: ConfigMap): IpNetwork | undefined {
  const text = optionalString(map, "subnet");
  if (text === undefined || text === "") return undefined;
  const network = parseNetwork(text);
  if (network?.version === 4 && network.prefixLength >= shortestPrefix && network.prefixLength <= longestPrefix)
    return network;
  const rule = `must be an IPv4 network from /${shortestPrefix} to /${longestPrefix} (four addresses a VM), e.g. "10.207.0.0/16"`;
  throw new ConfigError("network.subnet", text, rule);
}
