// The `network` block of the plugin's config: where VMs' addresses come from, and what no job may reach.
import { type IpNetwork, parseNetwork } from "../../../system/ip.ts";
import { ConfigError } from "../../errors.ts";
import { key, section } from "../table.ts";
import { egressRules } from "../task/network.ts";
import { boolean, integer, type Reader, refine, string } from "../values.ts";

const maxRate = 10_000_000;
const minPrefix = 8;
const maxPrefix = 28;

/** Undefined for 0: no limit. */
const rate = (unit: string): Reader<number | undefined> =>
  refine(integer({ min: 0, max: maxRate, unit: `${unit} a second (0: no limit)` }), (value) =>
    value === 0 ? undefined : value,
  );

const subnet = refine(string, (text, path): IpNetwork => {
  const network = parseNetwork(text);
  if (network?.version === 4 && network.prefixLength >= minPrefix && network.prefixLength <= maxPrefix) return network;
  const rule = `must be an IPv4 network from /${minPrefix} to /${maxPrefix} (four addresses a VM), e.g. "10.207.0.0/16"`;
  throw new ConfigError(path, text, rule);
});

export const networkBlock = section("network", {
  doc: "The default network of VMs, and what no job may reach.",
  rows: {
    subnet: key("subnet", {
      reader: subnet,
      hcl: "string",
      emptyIsAbsent: true,
      absent: "one that overlaps with no route of the host, such as 10.207.0.0/16",
      doc: `An IPv4 network from /${minPrefix} to /${maxPrefix}, from which each VM gets four addresses.`,
    }),
    allowMetadata: key("allow_metadata", {
      reader: boolean,
      hcl: "bool",
      default: false,
      doc: "Whether VMs reach the cloud's metadata service at 169.254.169.254.",
    }),
    egressDeny: key("egress_deny", {
      reader: egressRules,
      hcl: "list(string)",
      default: [],
      doc: 'Destinations that no VM reaches, whatever its job allows. The rules have the form of `egress.deny` in a task, e.g. "10.0.0.0/8:22/tcp".',
    }),
    // Far beyond honest workloads: packets are as large as the guest's kernel makes them, up to 64 KiB.
    packets: key("packet_rate", {
      reader: rate("packets"),
      default: 200_000,
      doc: "The host drops packets that a VM sends faster.",
    }),
    connections: key("connection_rate", {
      reader: rate("connections"),
      default: 1_000,
      doc: "The host drops new connections that a VM opens faster.",
    }),
  },
  convert: ({ packets, connections, ...rest }) => ({ ...rest, limits: { packets, connections } }),
});
