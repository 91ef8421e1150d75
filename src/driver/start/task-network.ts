// From a task's config to its VM's network.
import { defaultConnections } from "../../network/host/read-host.ts";
import type { NetworkHost } from "../../network/inspect/inspect-network.ts";
import type { Networks } from "../../network/network.ts";
import { metadataFloor, resolverRules } from "../../network/plan/egress-policy.ts";
import type { NetworkPlan } from "../../network/plan/network-plan.ts";
import type { ReservedNetwork } from "../../network/reserve.ts";
import type { PluginSettings } from "../config/plugin/plugin-config.ts";
import { type ContainerSettings, hostGateway } from "../config/task/container.ts";
import type { NetworkSettings } from "../config/task/network.ts";
import { ConfigError } from "../errors.ts";
import type { TaskConfig } from "../nomad-driver.ts";
import { etcResolvConf, nameservers } from "./etc-files.ts";

export interface TaskNetworkOptions {
  readonly config: TaskConfig;
  readonly settings: NetworkSettings;
  /** The task's own dns_* settings. */
  readonly taskDns: ContainerSettings["dns"];
  readonly plugin: PluginSettings;
  readonly host: NetworkHost;
  readonly networks: Networks;
  readonly signal: AbortSignal;
}

/** Dispose of it once the VM's record is written. Fails with ConfigError or src/network's errors. */
export async function reserveTaskNetwork(options: TaskNetworkOptions): Promise<ReservedNetwork> {
  const { config, settings, taskDns, plugin, signal } = options;
  requireLabels(config, settings);
  if (settings.mode === "none") return { plan: undefined, [Symbol.dispose]: () => {} };
  const resolvers = nameservers(await etcResolvConf({ dns: config.dns, taskDns }));
  const { allowMetadata, allowHost, egressDeny, limits, forwardTo } = plugin.network;
  return await options.networks.reserve({
    request: {
      taskName: config.name,
      allocId: config.allocId,
      namespacePath: config.networkNamespacePath,
      ports: config.ports,
      named: settings.ports,
      upstreamPorts: upstreamPorts(config.env),
      egress: {
        default: settings.egress.default,
        deny: [...settings.egress.deny],
        allow: [...settings.egress.allow],
        floor: [...(allowMetadata ? [] : metadataFloor(resolvers)), ...egressDeny],
      },
      hostAccess: [...resolverRules(resolvers), ...allowHost],
      limits: { ...limits, open: limits.open === "default" ? await defaultConnections() : limits.open },
      forwardTo,
    },
    host: options.host,
    basePath: plugin.basePath,
    signal,
  });
}

function requireLabels(config: TaskConfig, settings: NetworkSettings): void {
  const known = config.ports.map(({ label }) => label);
  const unknown = settings.ports.find((label) => !known.includes(label));
  if (unknown === undefined) return;
  const there = known.length === 0 ? "it has none" : `it has ${known.join(", ")}`;
  throw new ConfigError("ports", unknown, `is not a port label of the group's network block (${there})`);
}

/** Consul Connect's ports on the group's loopback: NOMAD_UPSTREAM_PORT_name. */
function upstreamPorts(env: Readonly<Record<string, string>>): number[] {
  return Object.entries(env)
    .filter(([name]) => name.startsWith("NOMAD_UPSTREAM_PORT_"))
    .map(([, value]) => Number(value))
    .filter((port) => Number.isInteger(port) && port >= 1 && port <= 65_535);
}

/** The job's `extra_hosts`, with the host's own address for docker's "host-gateway". Fails with ConfigError. */
export function resolveExtraHosts(
  extraHosts: ContainerSettings["extraHosts"],
  plan: NetworkPlan | undefined,
): ContainerSettings["extraHosts"] {
  return extraHosts.map(({ name, address }) => {
    if (address !== hostGateway) return { name, address };
    // In the group's namespace the VM's gateway is not an address of the host.
    if (plan?.mode !== "nat") {
      throw new ConfigError(
        "extra_hosts",
        `${name}:${address}`,
        "needs the VM to have a network of its own: a group without bridge or CNI mode",
      );
    }
    return { name, address: plan.gateway };
  });
}
