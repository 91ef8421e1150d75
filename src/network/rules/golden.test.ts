// Compares the complete rule text of each kind of network with a golden file. Each file is one transaction for `nft -f`.
// To renew the files, run this test with LITEGIX_RENEW_GOLDEN=1 and review the difference.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { namespacePlan, natPlan, strictPolicy } from "../../../test/fakes/network-plans.ts";
import { leaseOf } from "../plan/address-pool.ts";
import { parseEgressRule } from "../plan/egress-policy.ts";
import type { NetworkPlan } from "../plan/network-plan.ts";
import { namespaceRemoval, namespaceRules } from "./namespace.ts";
import { natRemoval, natRules } from "./nat.ts";
import { removeTables } from "./nft.ts";

interface Golden {
  readonly name: string;
  /** The first line of the file, for its reviewer. */
  readonly about: string;
  readonly lines: readonly string[];
  /** The VMs whose interfaces must exist for `nft`. */
  readonly plans: readonly NetworkPlan[];
}

const limits = { packets: 200_000, connections: 1_000, open: 32_768 };
const natHost = { uplinks: ["eth0", "wg0"] };
const namespaceHost = {
  ipv4: ["172.26.64.1", "192.0.2.7"],
  ipv6: ["2001:db8::7", "fd00::1"],
  publishedPorts: [8443],
};
const hostAccess = ["0.0.0.0/0:20000-32000", "192.0.2.7:53/udp", "[::/0]:20000-32000"].map(parseEgressRule);
const nat = natPlan();
const strictNat = natPlan({ egress: strictPolicy, limits, hostAccess });
const published = natPlan({
  ports: [
    { label: "web", hostIp: "", hostPort: 20_000, guestPort: 8080 },
    { label: "admin", hostIp: "10.0.0.1", hostPort: 20_001, guestPort: 9090 },
  ],
});
const otherNat = natPlan({ taskName: "other", ...leaseOf("10.207.31.10") });

const ipv6 = { address: "fd00::2", prefixLength: 64 };
const { ipv4: _, ...withoutIpv4 } = namespacePlan({ ipv6 });
const alone = namespacePlan({ unnamedPorts: [8080, 20_001], outsidePorts: [20_002] });
const dual = namespacePlan({ ipv6, hostNetworks: ["10.207.0.0/16"] });
const strict = namespacePlan({ ipv6, egress: strictPolicy, limits, hostAccess });
const first = namespacePlan({
  ports: [{ label: "web", guestPort: 8080 }],
  // Nobody named 9090 when this VM started; the second VM names it.
  unnamedPorts: [9090, 20_001],
});
const second = namespacePlan({
  taskName: "second",
  ...leaseOf("169.254.230.6"),
  index: 1,
  ports: [{ label: "admin", guestPort: 9090 }],
});

const goldens: readonly Golden[] = [
  {
    name: "nat",
    about: "The default network: a VM that may connect to everything but cloud metadata, with nothing published.",
    lines: natRules([nat], natHost),
    plans: [nat],
  },
  {
    name: "nat-policy",
    about: "The default network: an egress policy with allow-list, limits, and services of the host that are open.",
    lines: natRules([strictNat], natHost),
    plans: [strictNat],
  },
  {
    name: "nat-ports",
    about: "The default network: one port published at all of the host's addresses, one at 10.0.0.1.",
    lines: natRules([published], natHost),
    plans: [published],
  },
  {
    name: "nat-restore",
    about: "The default network: the rules of two VMs at once, as they come back after a flush.",
    lines: natRules([nat, otherNat], natHost),
    plans: [nat, otherNat],
  },
  {
    name: "nat-removal",
    about: "The default network: a VM with published ports goes, others stay.",
    lines: natRemoval(published),
    plans: [],
  },
  {
    name: "nat-removal-last",
    about: "The default network: the last VM goes.",
    lines: removeTables("litegix_test"),
    plans: [],
  },
  {
    name: "namespace",
    about: "A group with IPv4 and one VM, which gets the ports that no task names (8080, 20001).",
    lines: namespaceRules([alone], namespaceHost),
    plans: [alone],
  },
  {
    name: "namespace-ipv6",
    about: "A group with IPv4 and IPv6 and one VM.",
    lines: namespaceRules([dual], namespaceHost),
    plans: [dual],
  },
  {
    name: "namespace-ipv6-only",
    about: "A group with IPv6 only and one VM.",
    lines: namespaceRules([withoutIpv4], namespaceHost),
    plans: [withoutIpv4],
  },
  {
    name: "namespace-policy",
    about: "A group with IPv4 and IPv6: a VM with an egress policy, an allow-list and limits.",
    lines: namespaceRules([strict], namespaceHost),
    plans: [strict],
  },
  {
    name: "namespace-ports",
    about: "A group of two VMs: each names a port (8080, 9090); 20001 is named by neither and is the first VM's.",
    lines: namespaceRules([second, first], namespaceHost),
    plans: [first, second],
  },
  {
    name: "namespace-removal",
    about: "A group: the second VM goes, the first stays.",
    lines: namespaceRemoval(second, [first], namespaceHost),
    plans: [first],
  },
  {
    name: "namespace-removal-last",
    about: "A group: the last VM goes.",
    lines: namespaceRemoval(first, [], namespaceHost),
    plans: [],
  },
];

const folder = import.meta.dirname;
const pathOf = (name: string): string => join(folder, `${name}.golden`);

/** Each chain is a paragraph. */
function format({ about, lines }: Golden): string {
  const chainOf = (line: string): string => /^\w+ (?:chain|rule) (\w+ \w+ \w+)/.exec(line)?.[1] ?? "";
  const text = lines.map((line, index) => {
    const before = lines[index - 1];
    return before === undefined || chainOf(before) === chainOf(line) ? line : `\n${line}`;
  });
  return `# ${about}\n\n${text.join("\n")}\n`;
}

/** Why nft cannot check the files here; undefined if it can. */
function whyUnchecked(): string | undefined {
  if (process.getuid?.() !== 0) return "nft parses rules for root only";
  const { status, error, stderr } = spawnSync("unshare", ["--net", "nft", "list", "tables"], { encoding: "utf8" });
  if (status === 0) return undefined;
  return `nft can't be run in a new network namespace: ${error?.message ?? stderr.trim()}`;
}

describe("the text that nftables gets", () => {
  const unchecked = whyUnchecked();
  for (const golden of goldens) {
    it(`${golden.name}: ${golden.about}`, async () => {
      const path = pathOf(golden.name);
      if (process.env["LITEGIX_RENEW_GOLDEN"] === "1") await writeFile(path, format(golden));
      assert.equal(format(golden), await readFile(path, "utf8"));
    });

    it(`nft takes ${golden.name}`, { skip: unchecked ?? false }, () => {
      const taps = golden.plans.map(({ tap }) => `ip tuntap add dev ${tap} mode tap`);
      const script = [...taps, `nft --check --file ${pathOf(golden.name)}`].join(" && ");
      const { status, stderr } = spawnSync("unshare", ["--net", "sh", "-c", script], { encoding: "utf8" });
      assert.equal(status, 0, stderr);
    });
  }

  it("no golden file is left over", async () => {
    const files = (await readdir(folder)).filter((file) => file.endsWith(".golden"));
    assert.deepEqual(files.toSorted(), goldens.map(({ name }) => `${name}.golden`).toSorted());
  });
});
