// The network part of a task's `config` block: which network, which of the group's ports are the VM's, what it may reach.

import type { EgressRuleError } from "../../../network/errors.ts";
import { type EgressRule, parseEgressRule } from "../../../network/plan/egress-policy.ts";
import { ConfigError } from "../../errors.ts";
import { attr, block, type NamedSpec, object } from "../hcl-spec.ts";
import { asConfigMap, type ConfigMap, optionalString, optionalWords } from "../values.ts";

export interface NetworkSettings {
  /** "none": a VM with loopback only; "default": whatever the group's network block says. */
  readonly mode: "default" | "none";
  /** Labels of the group's ports. */
  readonly ports: readonly string[];
  readonly egress: {
    readonly default: "allow" | "deny";
    readonly deny: readonly EgressRule[];
    readonly allow: readonly EgressRule[];
  };
}

export const networkSchema: readonly NamedSpec[] = [
  attr("network_mode", "any"),
  attr("ports", "any"),
  block("egress", object(attr("default", "string"), attr("deny", "list(string)"), attr("allow", "list(string)"))),
];

/** Fails with ConfigError. */
export function parseNetwork(config: ConfigMap): NetworkSettings {
  const ports = optionalWords(config, "ports") ?? [];
  const twice = ports.find((label, index) => ports.indexOf(label) !== index);
  if (twice !== undefined) throw new ConfigError("ports", twice, "is named twice");
  const mode = networkMode(config);
  if (mode === "none" && ports.length > 0) {
    throw new ConfigError("ports", ports, 'can\'t be with network_mode = "none": such a VM has loopback only');
  }
  return { mode, ports, egress: egress(config) };
}

function networkMode(config: ConfigMap): NetworkSettings["mode"] {
  const mode = optionalString(config, "network_mode") ?? "default";
  // docker's name for what a container gets without the key.
  if (mode === "default" || mode === "bridge" || mode === "") return "default";
  if (mode === "none") return "none";
  const rule = 'must be "none" or "bridge": a VM can\'t be in the host\'s or another container\'s network stack';
  throw new ConfigError("network_mode", mode, rule);
}

function egress(config: ConfigMap): NetworkSettings["egress"] {
  const map = asConfigMap(config["egress"]);
  const verdict = optionalString(map, "default") ?? "allow";
  if (verdict !== "allow" && verdict !== "deny") {
    throw new ConfigError("egress.default", verdict, 'must be "allow" or "deny"');
  }
  return { default: verdict, deny: egressRules(map, "egress", "deny"), allow: egressRules(map, "egress", "allow") };
}

/** Also of the plugin's block. Fails with ConfigError. */
export function egressRules(map: ConfigMap, parent: string, key: string): EgressRule[] {
  return (optionalWords(map, key) ?? []).map((text) => {
    try {
      return parseEgressRule(text);
    } catch (error) {
      throw new ConfigError(`${parent}.${key}`, undefined, (error as EgressRuleError).text);
    }
  });
}
