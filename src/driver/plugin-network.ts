// The `network` block of the plugin's config: where VMs' addresses come from, and what no job may reach.
import type { EgressRule } from "../network/egress-policy.ts";
import { type IpNetwork, parseNetwork } from "../system/ip-address.ts";
import { asConfigMap, type ConfigMap, optionalBoolean, optionalString } from "./config-values.ts";
import { ConfigError } from "./errors.ts";
import { attr, block, type NamedSpec, object } from "./hcl-spec.ts";
import { egressRules } from "./task-config/network.ts";

export interface PluginNetworkSettings {
  /** Undefined: one that overlaps with no route of the host. */
  readonly subnet: IpNetwork | undefined;
  readonly allowMetadata: boolean;
  /** Refused before a job's own rules are looked at. */
  readonly egressDeny: readonly EgressRule[];
}

export const pluginNetworkSchema: NamedSpec = block(
  "network",
  object(attr("subnet", "string"), attr("allow_metadata", "bool"), attr("egress_deny", "list(string)")),
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
  };
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
