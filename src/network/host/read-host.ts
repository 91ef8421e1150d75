// Reads what the rules must know of the host: the interfaces that lead out of it, and the addresses that are its own.
import { readFile } from "node:fs/promises";
import { isIP, isIPv4, isIPv6 } from "node:net";
import * as v from "valibot";
import { ask } from "./tools.ts";

interface Options {
  readonly signal?: AbortSignal | undefined;
}

/** A VPN replaces the default route by two halves. */
const wholeInternet = new Set(["default", "0.0.0.0/1", "128.0.0.0/1"]);

const routesSchema = v.array(
  v.looseObject({
    dst: v.string(),
    dev: v.optional(v.string()),
    nexthops: v.optional(v.array(v.looseObject({ dev: v.optional(v.string()) })), []),
  }),
);

/** The interfaces with a default route in any routing table, in order. Fails with CommandError. */
export async function readUplinks(options: Options): Promise<string[]> {
  const argv = ["ip", "-4", "-j", "route", "show", "table", "all", "type", "unicast"] as const;
  const text = await ask({ ...options, namespacePath: undefined, argv });
  const routes = v.parse(routesSchema, JSON.parse(text === "" ? "[]" : text));
  const names = routes
    .filter(({ dst }) => wholeInternet.has(dst))
    .flatMap(({ dev, nexthops }) => [dev, ...nexthops.map((hop) => hop.dev)]);
  return [...new Set(names.flatMap((name) => name ?? []))].toSorted();
}

const addressesSchema = v.array(
  v.looseObject({ ifname: v.string(), addr_info: v.array(v.looseObject({ local: v.optional(v.string()) })) }),
);

/** The host's addresses, but those of its loopback, of links (fe80::) and of `isOwnTap` interfaces. Fails with CommandError. */
export async function readHostAddresses(
  options: Options & { isOwnTap: (name: string) => boolean },
): Promise<{ readonly ipv4: readonly string[]; readonly ipv6: readonly string[] }> {
  const { signal, isOwnTap } = options;
  const text = await ask({ signal, namespacePath: undefined, argv: ["ip", "-j", "address", "show"] });
  const addresses = v
    .parse(addressesSchema, JSON.parse(text))
    .filter(({ ifname }) => !isOwnTap(ifname))
    .flatMap(({ addr_info: found }) => found.flatMap(({ local }) => local ?? []))
    .filter((address) => isIP(address) !== 0 && !/^(127\.|fe80:|::1$)/.test(address));
  const distinct = [...new Set(addresses)].toSorted();
  return { ipv4: distinct.filter(isIPv4), ipv6: distinct.filter(isIPv6) };
}

/** The kernel looks through a VM's connections whenever one begins: 0.7 ms with so many (measured on 6.18). */
const mostConnections = 16_384;
const shareOfTable = 16;

/** The default number of connections of a VM: a sixteenth of the kernel's table, so that no few VMs fill it. */
export async function defaultConnections(path = "/proc/sys/net/netfilter/nf_conntrack_max"): Promise<number> {
  // The file comes with the kernel's module, which the first rule loads.
  const max = Number(await readFile(path, "utf8").catch(() => "0"));
  return max > 0 ? Math.max(Math.min(mostConnections, Math.floor(max / shareOfTable)), 1) : mostConnections;
}
