// The network part of a task's `config` block: which network, which of the group's ports are the VM's, what it may reach.
import type { EgressRuleError } from "../../../network/errors.ts";
import { type EgressRule, parseEgressRule } from "../../../network/plan/egress-policy.ts";
import { ConfigError } from "../../errors.ts";
import { key, type Parsed, readTable, section } from "../table.ts";
import { oneOf, refine, string, words } from "../values.ts";

const networkMode = refine(
  string,
  (mode, path): "default" | "none" => {
    // "bridge" is docker's name for a container's network without the key.
    if (mode === "default" || mode === "bridge" || mode === "") return "default";
    if (mode === "none") return "none";
    const rule = 'must be "none" or "bridge": a VM can\'t be in the host\'s or another container\'s network stack';
    throw new ConfigError(path, mode, rule);
  },
  '"none", "bridge" or "default"',
);

const ports = refine(words, (labels, path) => {
  const twice = labels.find((label, index) => labels.indexOf(label) !== index);
  if (twice !== undefined) throw new ConfigError(path, twice, "is named twice");
  return labels;
});

/** The plugin's block has them too. */
export const egressRules = refine(words, (rules, path): EgressRule[] =>
  rules.map((text) => {
    try {
      return parseEgressRule(text);
    } catch (error) {
      throw new ConfigError(path, undefined, (error as EgressRuleError).text);
    }
  }),
);

export const networkTable = {
  mode: key("network_mode", {
    reader: networkMode,
    default: "default",
    doc: 'With "none" the VM has loopback only. "bridge" and "default" give the network that the group\'s `network` block says. Docker\'s "host" and "container:NAME" do not exist for a VM.',
  }),
  ports: key("ports", {
    reader: ports,
    default: [],
    doc: "Labels of the group's ports that belong to this VM, as with docker's driver.",
  }),
  egress: section("egress", {
    doc: "The destinations that the VM may reach. `deny` comes before `allow`, then `default`. The plugin's `network.egress_deny` comes before them all.",
    rows: {
      default: key("default", {
        reader: oneOf("allow", "deny"),
        hcl: "string",
        default: "allow",
        doc: "The answer to destinations that no rule names.",
      }),
      deny: key("deny", {
        reader: egressRules,
        hcl: "list(string)",
        default: [],
        doc: 'Rules. Each is an address or a CIDR, then optionally `:PORT` or `:FIRST-LAST`, then optionally `/tcp` or `/udp`, e.g. "10.1.9.0/24".',
      }),
      allow: key("allow", {
        reader: egressRules,
        hcl: "list(string)",
        default: [],
        doc: 'Rules of the same form, e.g. "10.1.0.0/16:5432/tcp" or "[fd00::/8]:53/udp".',
      }),
    },
  }),
};

export type NetworkSettings = Parsed<typeof networkTable>;

/** Fails with ConfigError. */
export function parseNetworkSettings(config: unknown): NetworkSettings {
  const settings = readTable(networkTable, config);
  if (settings.mode === "none" && settings.ports.length > 0) {
    const rule = 'can\'t be combined with network_mode = "none": such a VM has loopback only';
    throw new ConfigError("ports", settings.ports, rule);
  }
  return settings;
}
