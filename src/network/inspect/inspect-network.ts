// Inspects which networks this host can give to VMs, with reasons for the fingerprint. Every fingerprint inspects again.

import { access } from "node:fs/promises";
import { reasonOf } from "../../system/error.ts";
import { type IpNetwork, networksOverlap, networkText, parseNetwork } from "../../system/ip.ts";
import { readLinks, readRoutes } from "../host/read-namespace.ts";
import { ask } from "../host/tools.ts";
import { isTapName } from "../plan/address-pool.ts";
import { whyNoBridge } from "./cni-plugins.ts";

export type NetworkAbility<T = object> =
  | ({ readonly usable: true } & T)
  | { readonly usable: false; readonly reason: string };

export interface NetworkHost {
  readonly nat: NetworkAbility<{ readonly subnet: IpNetwork; readonly mtu: number }>;
  readonly group: NetworkAbility;
  /** A reason why Nomad, which makes the bridge before it calls the driver, probably cannot; undefined if it can. */
  readonly bridgeLack: string | undefined;
}

/**
 * They avoid the subnets of docker (parts of 172.17.0.0/12 and 192.168.0.0/16), podman (10.88), Nomad (172.26.64.0/20) and
 * Kubernetes.
 */
const candidates = ["10.207.0.0/16", "10.83.0.0/16", "10.149.0.0/16", "100.117.0.0/16"].flatMap(
  (text) => parseNetwork(text) ?? [],
);
const minMtu = 1280;
const usualMtu = 1500;

/** Fails only if `signal` aborts; any other problem becomes a reason. */
export async function inspectNetwork(options: {
  /** The plugin's config sets it; undefined: the first candidate that is free. */
  subnet: IpNetwork | undefined;
  cniDirectories?: readonly string[] | undefined;
  signal?: AbortSignal | undefined;
}): Promise<NetworkHost> {
  const [reason, bridgeLack] = await Promise.all([whatIsMissing(options.signal), whyNoBridge(options.cniDirectories)]);
  if (reason !== undefined) return { nat: { usable: false, reason }, group: { usable: false, reason }, bridgeLack };
  return { nat: await inspectNat(options), group: { usable: true }, bridgeLack };
}

async function whatIsMissing(signal: AbortSignal | undefined): Promise<string | undefined> {
  const programs = [
    ["ip", ["ip", "-V"], "iproute2"],
    ["nft", ["nft", "--version"], "nftables"],
    ["nsenter", ["nsenter", "--version"], "util-linux"],
  ] as const;
  for (const [program, argv, debianPackage] of programs) {
    try {
      await ask({ namespacePath: undefined, signal, argv: [...argv] });
    } catch {
      signal?.throwIfAborted();
      return `${program} can't be run: install Debian's ${debianPackage}`;
    }
  }
  try {
    await access("/dev/net/tun");
    return undefined;
  } catch {
    return "there is no /dev/net/tun: load the kernel module tun (modprobe tun)";
  }
}

async function inspectNat(options: {
  subnet: IpNetwork | undefined;
  signal?: AbortSignal | undefined;
}): Promise<NetworkHost["nat"]> {
  const place = { namespacePath: undefined, signal: options.signal };
  try {
    const [routes, links] = await Promise.all([readRoutes({ ...place, family: "-4" }), readLinks(place)]);
    const taken = routes
      .filter(({ dst, dev }) => dst !== "default" && (dev === undefined || !isTapName(dev)))
      .flatMap(({ dst, dev }) => {
        const network = parseNetwork(dst);
        return network === undefined ? [] : [{ network, dev: dev ?? "no device" }];
      });
    const conflictOf = (subnet: IpNetwork): string | undefined => {
      const found = taken.find(({ network }) => networksOverlap(network, subnet));
      return found === undefined
        ? undefined
        : `${networkText(subnet)} overlaps with the host's route to ${networkText(found.network)} (${found.dev})`;
    };
    const subnet = options.subnet ?? candidates.find((candidate) => conflictOf(candidate) === undefined);
    if (subnet === undefined) {
      return {
        usable: false,
        reason:
          "each subnet that VMs could have overlaps with a route of the host; set subnet in the plugin's network block",
      };
    }
    const conflict = conflictOf(subnet);
    if (conflict !== undefined)
      return { usable: false, reason: `${conflict}; set another subnet in the plugin's network block` };
    await ask({ ...place, argv: ["nft", "list", "tables"] });
    const wayOut = routes.find(({ dst }) => dst === "default")?.dev;
    const mtu = links.find(({ ifname }) => ifname === wayOut)?.mtu ?? usualMtu;
    return { usable: true, subnet, mtu: Math.min(Math.max(mtu, minMtu), usualMtu) };
  } catch (error) {
    options.signal?.throwIfAborted();
    return { usable: false, reason: reasonOf(error) };
  }
}
