// The `jailer` block of the plugin's config: how VMs are kept apart from the host.
import type { UserRange } from "../../../machine/users.ts";
import { ConfigError } from "../../errors.ts";
import { key, section } from "../table.ts";
import { boolean, refine, string } from "../values.ts";

/** Neither systemd's dynamic users nor the subordinate ids of Debian's /etc/subuid lie here. */
const defaultUsers = "70000-79999";
const maxUid = 2 ** 32 - 2;

const userRange = refine(string, (text, path): UserRange => {
  const [, firstText, lastText] = /^(\d{1,10})-(\d{1,10})$/.exec(text) ?? [];
  const first = Number(firstText);
  const last = Number(lastText);
  if (first >= 1 && first <= last && last <= maxUid) return { first, last };
  const rule = `must be "FIRST-LAST", numbers of users and groups that nobody else on the host has, e.g. "${defaultUsers}"`;
  throw new ConfigError(path, text, rule);
});

const relativePath = refine(string, (text, path) => {
  const parts = text.split("/");
  if (parts.some((part) => part === "" || part === "." || part === "..") || text.includes("\n")) {
    throw new ConfigError(path, text, 'must be a relative path such as "litegix-fc-driver"');
  }
  return text;
});

export const jailerBlock = section("jailer", {
  doc: "How VMs are kept apart from the host.",
  rows: {
    enabled: key("enabled", {
      reader: boolean,
      hcl: "bool",
      default: true,
      doc: "Whether Firecracker runs in its jail, and QEMU in ours. If false, VMs run as root, and the fingerprint warns.",
    }),
    users: key("uid_range", {
      reader: userRange,
      hcl: "string",
      default: defaultUsers,
      doc: "Each VM gets a user and a group of its own from this range; pulls of images have the last one. Nobody else on the host may have them, and two agents on one host need different ranges.",
    }),
    parentCgroup: key("parent_cgroup", {
      reader: relativePath,
      hcl: "string",
      default: "litegix-fc-driver",
      doc: "The cgroup below which each VM gets its own, relative to the root of the hierarchy.",
    }),
  },
});
