// Reads a namespace's network: the allocation's interface, its addresses, MTU and routes.
import { stat } from "node:fs/promises";
import * as v from "valibot";
import { reasonOf } from "../../system/error.ts";
import { NamespaceError } from "../errors.ts";
import { ask } from "./tools.ts";

export interface NamespaceFacts {
  readonly device: string;
  readonly mtu: number;
  readonly ipv4: { readonly address: string; readonly prefixLength: number } | undefined;
  readonly ipv6: { readonly address: string; readonly prefixLength: number } | undefined;
  /** Destinations: CIDRs or addresses. */
  readonly routes: readonly string[];
}

const linksSchema = v.array(
  v.object({
    ifname: v.string(),
    mtu: v.number(),
    flags: v.array(v.string()),
    addr_info: v.array(
      v.object({ family: v.string(), local: v.optional(v.string(), ""), prefixlen: v.number(), scope: v.string() }),
    ),
  }),
);
const routesSchema = v.array(v.object({ dst: v.string(), dev: v.optional(v.string()), type: v.optional(v.string()) }));

export async function readRoutes(options: {
  namespacePath: string | undefined;
  family: "-4" | "-6";
  signal?: AbortSignal | undefined;
}): Promise<v.InferOutput<typeof routesSchema>> {
  const text = await ask({ ...options, argv: ["ip", options.family, "-j", "route", "show"] });
  return v.parse(routesSchema, JSON.parse(text === "" ? "[]" : text));
}

export async function readLinks(options: {
  namespacePath: string | undefined;
  signal?: AbortSignal | undefined;
}): Promise<v.InferOutput<typeof linksSchema>> {
  const text = await ask({ ...options, argv: ["ip", "-j", "address", "show"] });
  return v.parse(linksSchema, JSON.parse(text));
}

/** Undefined if the namespace has loopback only. Fails with NamespaceError. */
export async function readNamespace(options: {
  path: string;
  isOwnTap: (name: string) => boolean;
  signal?: AbortSignal | undefined;
}): Promise<NamespaceFacts | undefined> {
  const place = { namespacePath: options.path, signal: options.signal };
  try {
    const [links, four, six] = await Promise.all([
      readLinks(place),
      readRoutes({ ...place, family: "-4" }),
      readRoutes({ ...place, family: "-6" }).catch(() => []),
    ]);
    const candidates = links.filter(({ ifname, flags }) => !flags.includes("LOOPBACK") && !options.isOwnTap(ifname));
    const wayOut = [...four, ...six].find(({ dst }) => dst === "default")?.dev;
    const addressOf = (link: (typeof candidates)[number], family: string) => {
      const found = link.addr_info.find(
        (item) => item.family === family && item.scope === "global" && item.local !== "",
      );
      return found === undefined ? undefined : { address: found.local, prefixLength: found.prefixlen };
    };
    const usable = candidates.filter((link) => addressOf(link, "inet") ?? addressOf(link, "inet6"));
    const link = usable.find(({ ifname }) => ifname === wayOut) ?? usable[0];
    if (link === undefined) return undefined;
    const destinations = (routes: typeof four, all: string): string[] =>
      routes
        .filter(({ dev, type }) => (type ?? "unicast") === "unicast" && dev !== undefined && !options.isOwnTap(dev))
        .map(({ dst }) => (dst === "default" ? all : dst))
        .filter((dst) => !dst.startsWith("fe80:"));
    return {
      device: link.ifname,
      mtu: link.mtu,
      ipv4: addressOf(link, "inet"),
      ipv6: addressOf(link, "inet6"),
      routes: [...new Set([...destinations(four, "0.0.0.0/0"), ...destinations(six, "::/0")])],
    };
  } catch (error) {
    options.signal?.throwIfAborted();
    throw new NamespaceError({ path: options.path, reason: reasonOf(error), cause: error });
  }
}

/** After the namespace is unmounted, an ordinary file stays at its path. */
export async function isNamespace(path: string): Promise<boolean> {
  const [there, own] = await Promise.all([stat(path).catch(() => undefined), stat("/proc/self/ns/net")]);
  return there !== undefined && there.dev === own.dev;
}

export async function requireNamespace(path: string): Promise<void> {
  if (!path.startsWith("/")) throw new NamespaceError({ path, reason: "Nomad did not give an absolute path" });
  if (await isNamespace(path)) return;
  throw new NamespaceError({ path, reason: "it is not there any more; Nomad makes a new one with a new allocation" });
}
