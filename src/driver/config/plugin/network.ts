// The `network` block of the plugin's config: where VMs' addresses come from, and what no job may reach.
import { type IpNetwork, parseNetwork } from "../../../system/ip.ts";
import { ConfigError } from "../../errors.ts";
import { key, section } from "../table.ts";
import { egressRules } from "../task/network.ts";
import { boolean, integer, type Reader, refine, string, words } from "../values.ts";

const maxRate = 10_000_000;
const minPrefix = 8;
const maxPrefix = 28;

/** Undefined for 0: no limit. */
const rate = (unit: string): Reader<number | undefined> =>
  refine(integer({ min: 0, max: maxRate, unit: `${unit} a second (0: no limit)` }), (value) =>
    value === 0 ? undefined : value,
  );

/** Nomad's default for min_dynamic_port and max_dynamic_port. */
const nomadsDynamicPorts = ["0.0.0.0/0:20000-32000", "[::/0]:20000-32000"];

/** The kernel's rule for a name. */
const interfaces = refine(words, (names, path) => {
  const wrong = names.find((name) => !/^[^\s"/]{1,15}$/.test(name));
  if (wrong === undefined) return names;
  throw new ConfigError(path, wrong, 'must be the name of a network interface, such as "eth1"');
});

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
      doc: "Whether VMs reach the cloud's metadata service, at 169.254.169.254 and the other addresses that clouds document.",
    }),
    allowHost: key("allow_host", {
      reader: egressRules,
      hcl: "list(string)",
      default: nomadsDynamicPorts,
      doc: 'The host\'s own services that VMs may reach, beside DNS and published ports. The rules have the form of `egress.allow` in a task, e.g. "192.0.2.7:8080/tcp"; "0.0.0.0/0" opens all. The default is Nomad\'s range of dynamic ports, at which other allocations listen.',
    }),
    forwardTo: key("forward_to", {
      reader: interfaces,
      hcl: "list(string)",
      default: [],
      doc: "Interfaces of the host to which VMs of the default network may send, beside those with a default route.",
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
    open: key("connections", {
      reader: integer({ min: 0, max: maxRate, unit: "connections (0: no limit)" }),
      absent: "a sixteenth of `net.netfilter.nf_conntrack_max`, at most 16384",
      doc: "The connections that a VM may have at a time, in both directions. The host drops the first packet of another.",
    }),
  },
  convert: ({ packets, connections, open, ...rest }) => ({
    ...rest,
    limits: { packets, connections, open: open ?? ("default" as const) },
  }),
});
