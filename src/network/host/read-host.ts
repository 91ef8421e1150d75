// Reads what the rules must know of the host: the interfaces that lead out of it, and the addresses that are its own.
import { readFile } from "node:fs/promises";
import * as v from "valibot";
import { parseNetwork } from "../../system/ip.ts";
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

/** `ip` fails if the routes change meanwhile. */
const attempts = 5;

async function readAllRoutes(options: Options, attempt = 1): Promise<v.InferOutput<typeof routesSchema>> {
  const argv = ["ip", "-4", "-j", "route", "show", "table", "all", "type", "unicast"] as const;
  try {
    const text = await ask({ ...options, namespacePath: undefined, argv });
    return v.parse(routesSchema, JSON.parse(text === "" ? "[]" : text));
  } catch (error) {
    options.signal?.throwIfAborted();
    if (attempt === attempts) throw error;
    return await readAllRoutes(options, attempt + 1);
  }
}

/** The interfaces with a default route in any routing table, in order. Fails with CommandError. */
export async function readUplinks(options: Options): Promise<string[]> {
  const routes = await readAllRoutes(options);
  const names = routes
    .filter(({ dst }) => wholeInternet.has(dst))
    .flatMap(({ dev, nexthops }) => [dev, ...nexthops.map((hop) => hop.dev)]);
  return [...new Set(names.flatMap((name) => name ?? []))].toSorted();
}

/**
 * The host's addresses, but those of its loopback and of links (fe80::). Read from the kernel's files, since `ip` fails if
 * interfaces change meanwhile.
 */
export async function readHostAddresses(
  files: { readonly ipv4: string; readonly ipv6: string } = {
    ipv4: "/proc/self/net/fib_trie",
    ipv6: "/proc/self/net/if_inet6",
  },
): Promise<{ readonly ipv4: readonly string[]; readonly ipv6: readonly string[] }> {
  const [trie, list] = await Promise.all(
    [files.ipv4, files.ipv6].map((path) => readFile(path, "utf8").catch(() => "")),
  );
  // Each routing table has a section: "Main:", "Local:", "Id 19269:".
  const local = /^Local:$([\s\S]*?)(?=^\S|$(?![\s\S]))/m.exec(trie ?? "")?.[1] ?? "";
  const four = [...local.matchAll(/\|-- (\S+)\n\s+\/32 host LOCAL/g)].map(([, address = ""]) => address);
  const six = [...(list ?? "").matchAll(/^([0-9a-f]{32}) /gm)].map(([, digits = ""]) => ipv6Text(digits));
  return {
    ipv4: distinct(four.filter((address) => !address.startsWith("127."))),
    ipv6: distinct(six.filter((address) => !/^(fe80:|::1$)/.test(address))),
  };
}

const distinct = (texts: readonly string[]): string[] => [...new Set(texts)].toSorted();
const ipv6Text = (digits: string): string =>
  parseNetwork(digits.replaceAll(/(?<=.)(?=(?:.{4})+$)/g, ":"))?.address ?? "::1";

/** The kernel looks through a VM's connections whenever one begins: 0.7 ms with so many (measured on 6.18). */
const mostConnections = 16_384;
const shareOfTable = 16;

/** The default number of connections of a VM: a sixteenth of the kernel's table, so that no few VMs fill it. */
export async function defaultConnections(path = "/proc/sys/net/netfilter/nf_conntrack_max"): Promise<number> {
  // The file comes with the kernel's module, which the first rule loads.
  const max = Number(await readFile(path, "utf8").catch(() => "0"));
  return max > 0 ? Math.max(Math.min(mostConnections, Math.floor(max / shareOfTable)), 1) : mostConnections;
}
