// Which registries an image's name may lead to. A job's author chooses the name, and the host connects: without a rule,
// names would reach the services on the host's loopback, the cloud's metadata, and whatever VMs are kept from. Names are
// judged before any connection; addresses are judged after resolution, at each connection (redirects and token servers
// too), so that DNS can't lead elsewhere. The operator's own words in the plugin's config open what is closed here.
import { type LookupAddress, lookup as systemLookup } from "node:dns";
import { Agent as HttpAgent } from "node:http";
import { Agent as HttpsAgent } from "node:https";
import { isIP, type LookupFunction } from "node:net";
import { networkInterfaces } from "node:os";
import * as v from "valibot";
import { addressBytes, type IpNetwork, networksOverlap, parseNetwork } from "../../system/ip.ts";
import { RegistryAddressError, RegistryNotAllowedError } from "../errors.ts";
import type { RegistryConfigs } from "./endpoint.ts";

export const registryRulesSchema = v.object({
  /** Host patterns; undefined: every registry. */
  allowed: v.optional(v.array(v.string())),
  /** Networks that only registries which the operator names may be in. */
  denied: v.array(v.object({ network: v.string(), ports: v.optional(v.tuple([v.number(), v.number()])) })),
});

export interface RegistryRules {
  readonly allowed?: readonly string[] | undefined;
  readonly denied: readonly { readonly network: string; readonly ports?: readonly [number, number] | undefined }[];
}

export const noRegistryRules: RegistryRules = { denied: [] };

/** `*`, or a host name or address, maybe with `*.` before it and a port behind it. */
const patternForm = /^(?<host>\*|(?:\*\.)?[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::(?<port>\d{1,5}|\*))?$/i;
const everyHost = "*";

export function isHostPattern(text: string): boolean {
  return patternForm.test(text);
}

const closedNetworks: readonly (readonly [kind: string, networks: readonly string[]])[] = [
  ["this host's loopback", ["127.0.0.0/8", "::1/128", "0.0.0.0/8", "::/128"]],
  ["a link-local address, where clouds have their metadata", ["169.254.0.0/16", "fe80::/10"]],
  ["a multicast or broadcast address", ["224.0.0.0/3", "ff00::/8"]],
];

interface ClosedNetwork {
  readonly kind: string;
  readonly network: IpNetwork;
  readonly ports?: readonly [number, number] | undefined;
}

type ResolveAll = (
  host: string,
  options: { readonly all: true },
  callback: (error: NodeJS.ErrnoException | null, addresses: LookupAddress[]) => void,
) => void;

export class RegistryPolicy {
  readonly #allowed: readonly string[] | undefined;
  /** Patterns that the operator wrote, each for some hosts. */
  readonly #named: readonly string[];
  readonly #closed: readonly ClosedNetwork[];
  readonly #lookup: ResolveAll;
  /** This policy never uses a connection again that another policy allowed. */
  readonly #agents = { "http:": new HttpAgent({ keepAlive: true }), "https:": new HttpsAgent({ keepAlive: true }) };

  constructor(options: {
    readonly rules: RegistryRules;
    readonly registries: RegistryConfigs;
    readonly lookup?: ResolveAll;
    readonly ownAddresses?: readonly string[];
  }) {
    const { rules, registries, lookup = systemLookup } = options;
    this.#lookup = lookup;
    this.#allowed = rules.allowed;
    const blocks = Object.entries(registries).flatMap(([host, { mirrors }]) => [
      ...withPorts(host),
      ...mirrors.flatMap((mirror) => withPorts(mirror.replace(/^[a-z][a-z0-9+.-]*:\/\//i, "").replace(/\/.*$/, ""))),
    ]);
    this.#named = [...blocks, ...(rules.allowed ?? []).filter((pattern) => hostOf(pattern) !== everyHost)];
    const own = options.ownAddresses ?? ownAddresses();
    this.#closed = [
      ...closedNetworks.flatMap(([kind, networks]) => networks.map((network) => closed(kind, network))),
      ...own.map((address) => closed("an address of this host", address)),
      ...rules.denied.map(({ network, ports }) => ({ ...closed("closed to the jobs' VMs", network), ports })),
    ];
  }

  /** Fails with RegistryNotAllowedError. `host` is the reference's: `docker.io`, `127.0.0.1:5000`. */
  requireAllowed(host: string, reference: string): void {
    const reason = this.#refusalOf(URL.canParse(`https://${host}`) ? new URL(`https://${host}`) : undefined);
    if (reason !== undefined) throw new RegistryNotAllowedError({ reference, host, reason });
  }

  #refusalOf(url: URL | undefined): string | undefined {
    if (url === undefined) return "is not a host";
    if (this.#isNamed(url)) return undefined;
    if (this.#allowed?.some((pattern) => matches(pattern, url)) === false) return "is not listed";
    const name = bare(url.hostname);
    const kind = isIP(name) === 0 ? loopbackName(name) : this.#closedKind(name, portOf(url));
    return kind === undefined ? undefined : `is ${kind}`;
  }

  /** Whether a plain HTTP address may follow from another one: the same host, or one that the operator names. */
  mayFollowInPlain(from: URL, next: URL): boolean {
    return from.protocol === "http:" && (next.hostname === from.hostname || this.#isNamed(next));
  }

  /** For `request` of node:http(s): it connects only to addresses that are open. Fails with RegistryAddressError. */
  connection(url: URL, place: string): { readonly lookup: LookupFunction; readonly agent: HttpAgent } {
    const agent = url.protocol === "https:" ? this.#agents["https:"] : this.#agents["http:"];
    const refusal = (kind: string): RegistryAddressError => new RegistryAddressError({ place, host: url.host, kind });
    const isNamed = this.#isNamed(url);
    const port = portOf(url);
    const literal = bare(url.hostname);
    const kind = isNamed || isIP(literal) === 0 ? undefined : this.#closedKind(literal, port);
    if (kind !== undefined) throw refusal(kind);
    const lookup: LookupFunction = (host, options, callback) => {
      this.#lookup(host, { ...options, all: true }, (error, addresses) => {
        if (error !== null) {
          callback(error, []);
          return;
        }
        const kinds = addresses.map(({ address }) => (isNamed ? undefined : this.#closedKind(address, port)));
        const open = addresses.filter((_, index) => kinds[index] === undefined);
        const [first] = open;
        if (first === undefined) callback(refusal(kinds[0] ?? "without an address"), []);
        else if (options.all === true) callback(null, open);
        else callback(null, first.address, first.family);
      });
    };
    return { lookup, agent };
  }

  #isNamed(url: URL): boolean {
    return this.#named.some((pattern) => matches(pattern, url));
  }

  #closedKind(address: string, port: number): string | undefined {
    const forms = [address, ...embeddedIpv4(address)].flatMap((form) => parseNetwork(form) ?? []);
    return this.#closed.find(
      ({ network, ports }) =>
        forms.some((form) => networksOverlap(form, network)) &&
        (ports === undefined || (ports[0] <= port && port <= ports[1])),
    )?.kind;
  }
}

function closed(kind: string, text: string): ClosedNetwork {
  const network = parseNetwork(text);
  if (network === undefined) throw new TypeError(`not a network: ${text}`);
  return { kind, network };
}

/** IPv6 addresses that lead to IPv4 ones: mapped (RFC 4291), NAT64 (RFC 6052) and 6to4 (RFC 3056). */
function embeddedIpv4(address: string): string[] {
  if (isIP(address) !== 6) return [];
  const bytes = addressBytes(address.replace(/%.*$/, ""));
  const hex = Buffer.from(bytes).toString("hex");
  const quad = (start: number): string => bytes.subarray(start, start + 4).join(".");
  if (/^(?:0{20}ffff|0064ff9b0{16})/.test(hex)) return [quad(12)];
  return hex.startsWith("2002") ? [quad(2)] : [];
}

function ownAddresses(): string[] {
  return Object.values(networkInterfaces()).flatMap((list) => (list ?? []).map(({ address }) => address));
}

function loopbackName(name: string): string | undefined {
  return /^(?:.*\.)?localhost\.?$/.test(name) ? "this host's loopback" : undefined;
}

function bare(hostname: string): string {
  return hostname.replace(/^\[(.*)\]$/, "$1");
}

function portOf(url: URL): number {
  if (url.port !== "") return Number(url.port);
  return url.protocol === "http:" ? 80 : 443;
}

function hostOf(pattern: string): string {
  return patternForm.exec(pattern)?.groups?.["host"] ?? "";
}

/** A registry block's host without a port is the one at the usual ports. */
function withPorts(host: string): string[] {
  return /:\d+$/.test(host) ? [host] : [`${host}:443`, `${host}:80`];
}

function matches(pattern: string, url: URL): boolean {
  const { host = "", port = everyHost } = patternForm.exec(pattern)?.groups ?? {};
  if (port !== everyHost && Number(port) !== portOf(url)) return false;
  const wanted = host.toLowerCase();
  if (wanted === everyHost) return true;
  if (wanted.startsWith("*.")) return url.hostname.endsWith(wanted.slice(1));
  // The URL parser's spelling of addresses, which is also what `url` has.
  return URL.canParse(`http://${wanted}`) && new URL(`http://${wanted}`).hostname === url.hostname;
}
