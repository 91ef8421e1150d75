// Warns if the plugin's config lets every VM reach a service of the host that hands out the host.
import { readFile } from "node:fs/promises";
import type { EgressRule } from "../../network/plan/egress-policy.ts";

/** By their usual port: a VM that reaches one of them without further protection has the host. */
const services: ReadonlyMap<number, string> = new Map([
  [22, "sshd"],
  [2375, "docker's API"],
  [4646, "Nomad's API"],
  [4647, "Nomad's RPC"],
  [8500, "Consul's API"],
]);

const isWide = (rule: EgressRule, port: number): boolean =>
  rule.network.endsWith("/0") &&
  rule.protocol !== "udp" &&
  (rule.ports === undefined || (rule.ports[0] <= port && port <= rule.ports[1]));

/** `tables`: files of the form of /proc/net/tcp. */
export async function openServiceWarnings(
  allowHost: readonly EgressRule[],
  tables: readonly string[] = ["/proc/net/tcp", "/proc/net/tcp6"],
): Promise<string[]> {
  const texts = await Promise.all(tables.map((path) => readFile(path, "utf8").catch(() => "")));
  const listening = new Set(texts.flatMap(listeningEverywhere));
  return [...services]
    .filter(([port]) => listening.has(port) && allowHost.some((rule) => isWide(rule, port)))
    .map(
      ([port, name]) =>
        `VMs reach ${name}: it listens on all addresses of the host at port ${port}, and allow_host in the network block opens ` +
        "that port; name only the addresses and ports that VMs need, or bind the service to an address",
    );
}

/** The ports of sockets in state LISTEN (0A) on the unspecified address. */
function listeningEverywhere(table: string): number[] {
  return [...table.matchAll(/^\s*\d+: 0+:([0-9A-F]{4}) \S+ 0A /gm)].map(([, port = ""]) => Number.parseInt(port, 16));
}
