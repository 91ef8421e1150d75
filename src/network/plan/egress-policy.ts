// An egress policy: the addresses that a VM may connect to. Users write rules as "10.1.0.0/16:5432/tcp", "[fd00::/8]:53/udp" or
// "0.0.0.0/0". A rule applies to the address that the guest asked for, before the host translates it.
import * as v from "valibot";
import { networkText, parseNetwork } from "../../system/ip.ts";
import { EgressRuleError } from "../errors.ts";

const portNumber = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(65_535));

export const egressRuleSchema = v.object({
  version: v.picklist([4, 6]),
  network: v.pipe(v.string(), v.regex(/^[0-9a-f.:]+\/\d+$/)),
  /** First and last port; undefined: all ports. */
  ports: v.optional(v.tuple([portNumber, portNumber])),
  protocol: v.picklist(["tcp", "udp", "any"]),
});

export type EgressRule = v.InferOutput<typeof egressRuleSchema>;

export const egressPolicySchema = v.object({
  default: v.picklist(["allow", "deny"]),
  /** Metadata services and the plugin's own deny list: they come first, and a job cannot change them. */
  floor: v.array(egressRuleSchema),
  deny: v.array(egressRuleSchema),
  allow: v.array(egressRuleSchema),
});

export type EgressPolicy = v.InferOutput<typeof egressPolicySchema>;

const form =
  /^(?:\[(?<six>[^\]]+)\]|(?<four>[0-9.]+(?:\/\d+)?)|(?<bareSix>[0-9a-fA-F:]+\/\d+))(?::(?<first>\d{1,5})(?:-(?<last>\d{1,5}))?)?(?:\/(?<protocol>tcp|udp))?$/;
const example = 'write an address or CIDR, then :PORT or :FIRST-LAST, then /tcp or /udp, e.g. "10.1.0.0/16:5432/tcp"';

/** Fails with EgressRuleError. */
export function parseEgressRule(text: string): EgressRule {
  const groups = form.exec(text)?.groups;
  if (groups === undefined) throw new EgressRuleError({ rule: text, reason: example });
  const written = groups["six"] ?? groups["four"] ?? groups["bareSix"] ?? "";
  const network = parseNetwork(written);
  if (network === undefined)
    throw new EgressRuleError({
      rule: text,
      reason: `${JSON.stringify(written)} is not an address or CIDR; ${example}`,
    });
  const { first, last, protocol } = groups;
  const rule = { version: network.version, network: networkText(network) };
  if (first === undefined) return { ...rule, protocol: protocol === "tcp" || protocol === "udp" ? protocol : "any" };
  const ports: [number, number] = [Number(first), Number(last ?? first)];
  if (ports[0] < 1 || ports[1] > 65_535 || ports[0] > ports[1]) {
    throw new EgressRuleError({ rule: text, reason: "ports go from 1 to 65535, the first before the last" });
  }
  return { ...rule, ports, protocol: protocol === "udp" || protocol === "tcp" ? protocol : "any" };
}

/** Cloud providers hand out the host's credentials at these addresses, as their documentation says. */
export const metadataAddresses: readonly string[] = [
  // Amazon EC2, Azure, Google, Oracle, IBM, OpenStack and most others.
  "169.254.169.254",
  "fd00:ec2::254",
  // Amazon's ECS tasks and EKS pods.
  "169.254.170.2",
  "169.254.170.23",
  "fd00:ec2::23",
  // Azure's wire server.
  "168.63.129.16",
  // Google over IPv6.
  "fd20:ce::254",
  // Alibaba.
  "100.100.100.200",
  // Oracle: classic, then over IPv6.
  "192.0.0.192",
  "fd00:c1::a9fe:a9fe",
  // Tencent.
  "169.254.0.23",
  // Scaleway.
  "169.254.42.42",
  "fd00:42::42",
  // Akamai (Linode) over IPv6.
  "fd00:a9fe:a9fe::1",
];

const dnsPort = 53;

/**
 * Refuses every metadata service. Google, Oracle and Azure answer DNS at the same address: if it is among the VM's `resolvers`,
 * its port 53 stays open.
 */
export function metadataFloor(resolvers: readonly string[]): EgressRule[] {
  const own = new Set(resolvers.flatMap((resolver) => parseNetwork(resolver)?.address ?? []));
  return metadataAddresses.flatMap((address) => {
    const written = address.includes(":") ? `[${address}]` : address;
    const rest = [`1-${dnsPort - 1}`, `${dnsPort + 1}-65535`].map((ports) => `${written}:${ports}`);
    return (own.has(address) ? rest : [written]).map(parseEgressRule);
  });
}

/** DNS at these servers, wherever they are. Texts that are not addresses are left out. */
export function resolverRules(resolvers: readonly string[]): EgressRule[] {
  return resolvers.flatMap((resolver) => {
    const network = parseNetwork(resolver);
    if (network === undefined) return [];
    return { version: network.version, network: networkText(network), ports: [dnsPort, dnsPort], protocol: "any" };
  });
}
