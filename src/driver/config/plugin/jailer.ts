// The `jailer` block of the plugin's config: how VMs are kept apart from the host.
import type { UserRange } from "../../../machine/users.ts";
import { ConfigError } from "../../errors.ts";
import { attr, block, type NamedSpec, object } from "../hcl-spec.ts";
import { asConfigMap, type ConfigMap, optionalBoolean, optionalString } from "../values.ts";

export interface JailerSettings {
  readonly enabled: boolean;
  readonly users: UserRange;
  /** The cgroup below which each VM has its own, relative to the hierarchy's root. */
  readonly parentCgroup: string;
}

/** Neither systemd's dynamic users nor the subordinate ids of Debian's /etc/subuid lie here. */
const defaultUsers = "70000-79999";
const defaultParentCgroup = "litegix-fc-driver";
const largestUid = 2 ** 32 - 2;

export const jailerSchema: NamedSpec = block(
  "jailer",
  object(attr("enabled", "bool"), attr("uid_range", "string"), attr("parent_cgroup", "string")),
);

/** Fails with ConfigError. */
export function parseJailer(config: ConfigMap): JailerSettings {
  const map = asConfigMap(config["jailer"]);
  return {
    enabled: optionalBoolean(map, "enabled") ?? true,
    users: users(optionalString(map, "uid_range") ?? defaultUsers),
    parentCgroup: parentCgroup(optionalString(map, "parent_cgroup") ?? defaultParentCgroup),
  };
}

function users(text: string): UserRange {
  const [, firstText, lastText] = /^(\d{1,10})-(\d{1,10})$/.exec(text) ?? [];
  const first = Number(firstText);
  const last = Number(lastText);
  const isRange =
    firstText !== undefined && lastText !== undefined && first >= 1 && first <= last && last <= largestUid;
  if (!isRange) {
    const rule = `must be "FIRST-LAST", numbers of users and groups that nobody else on the host has, e.g. "${defaultUsers}"`;
    throw new ConfigError("jailer.uid_range", text, rule);
  }
  return { first, last };
}

function parentCgroup(text: string): string {
  const parts = text.split("/");
  if (parts.some((part) => part === "" || part === "." || part === "..") || text.includes("\n")) {
    throw new ConfigError("jailer.parent_cgroup", text, 'must be a relative path such as "litegix-fc-driver"');
  }
  return text;
}
