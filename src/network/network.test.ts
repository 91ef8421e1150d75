import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import * as v from "valibot";
import { parseNetwork } from "../system/ip-address.ts";
import { isNamespace } from "./apply/namespace.ts";
import { natLines } from "./apply/nat.ts";
import { AddressesExhaustedError, EgressRuleError, PortClaimedError } from "./errors.ts";
import { guestInterface } from "./guest-interface.ts";
import { chooseLease, isTapName, leaseOf } from "./plan/address-pool.ts";
import { egressMatch, egressRuleSchema, parseEgressRule } from "./plan/egress-policy.ts";
import { planNamespace } from "./plan/namespace.ts";
import { type NamespacePlan, type NatPlan, networkPlanSchema } from "./plan/network-plan.ts";
import { namespaceRules } from "./rules/namespace.ts";
import { egressRules, guardRules } from "./rules/rules.ts";

const subnet = parseNetwork("10.207.0.0/28");
assert.ok(subnet);

describe("addresses", () => {
  it("each VM has a /30, a TAP named after it, and MACs made of it", () => {
    const lease = leaseOf("10.207.0.6");
    assert.deepEqual(lease, {
      gateway: "10.207.0.5",
      address: "10.207.0.6",
      tap: "lg0acf0006",
      tapMac: "06:4c:0a:cf:00:06",
      guestMac: "02:4c:0a:cf:00:06",
    });
    assert.ok(isTapName(lease.tap));
  });

  it("all of a subnet are given out, none twice, then the pool says that it is empty", () => {
    fc.assert(
      fc.property(fc.infiniteStream(fc.double({ min: 0, max: 0.999, noNaN: true })), (stream) => {
        const taken = new Set<string>();
        const choose = () =>
          chooseLease({ subnet, isTaken: ({ tap }) => taken.has(tap), random: () => stream.next().value ?? 0 });
        for (let count = 0; count < 4; count++) {
          const { tap } = choose();
          assert.ok(!taken.has(tap));
          taken.add(tap);
        }
        assert.throws(choose, AddressesExhaustedError);
      }),
    );
  });
});

describe("egress rules", () => {
  it("become matches of the address that the guest asked for", () => {
    const match = (text: string): string => egressMatch(parseEgressRule(text));
    assert.equal(
      match("10.1.2.3/16:5432/tcp"),
      "ct original ip daddr 10.1.0.0/16 meta l4proto tcp ct original proto-dst 5432-5432",
    );
    assert.equal(
      match("0.0.0.0/0:1-1023"),
      "ct original ip daddr 0.0.0.0/0 meta l4proto { tcp, udp } ct original proto-dst 1-1023",
    );
    assert.equal(
      match("[fd00::/8]:53/udp"),
      "ct original ip6 daddr fd00::/8 meta l4proto udp ct original proto-dst 53-53",
    );
    assert.equal(match("10.0.0.1"), "ct original ip daddr 10.0.0.1/32");
    assert.equal(match("fd00::/8"), "ct original ip6 daddr fd00::/8");
    assert.equal(match("10.0.0.0/8/udp"), "ct original ip daddr 10.0.0.0/8 meta l4proto udp");
  });

  it("what is none is refused with an example, whatever it holds", () => {
    for (const bad of [
      "",
      "10.0.0.0/33",
      "10.0.0.1:0",
      "10.0.0.1:70000",
      "10.0.0.1:9-8",
      "10.0.0.1:80/sctp",
      "host:80",
      "[1.2.3.4",
      "1.2.3.4; drop",
    ]) {
      assert.throws(() => parseEgressRule(bad), EgressRuleError, bad);
    }
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom(..."0123456789.:/[]-abftcpud{};\n".split("")) }), (text) => {
        try {
          assert.ok(v.is(egressRuleSchema, parseEgressRule(text)));
        } catch (error) {
          assert.ok(error instanceof EgressRuleError);
        }
      }),
    );
  });
});

const facts = {
  device: "eth0",
  mtu: 1450,
  ipv4: { address: "172.26.64.2", prefixLength: 20 },
  ipv6: { address: "fd00::2", prefixLength: 64 },
  routes: ["0.0.0.0/0", "172.26.64.0/20", "::/0"],
};
const ports = [
  { label: "web", hostIp: "10.0.0.1", hostPort: 20_000, to: 8080 },
  { label: "admin", hostIp: "10.0.0.1", hostPort: 20_001, to: 0 },
  { label: "connect-proxy-x", hostIp: "10.0.0.1", hostPort: 20_002, to: -1 },
];
const plan = (taskName: string, named: string[], neighbours: NamespacePlan[] = []): NamespacePlan =>
  planNamespace({
    path: "/run/netns/a",
    facts,
    table: "litegix_test",
    taskName,
    allocId: "a",
    egress: { default: "allow", floor: [], deny: [], allow: [] },
    limits: { packets: 200_000, connections: 1_000 },
    ports,
    named,
    upstreamPorts: [9191],
    neighbours,
  });

describe("VMs in a group", () => {
  it("the only one has the ports that nobody names, but Connect's", () => {
    const only = plan("one", []);
    assert.deepEqual(only.unnamedPorts, [8080, 20_001]);
    assert.deepEqual(only.outsidePorts, [20_002, 9191]);
    assert.ok(v.is(networkPlanSchema, JSON.parse(JSON.stringify(only))));
  });

  it("one that names its ports leaves the others to whoever listens", () => {
    const first = plan("one", ["web"]);
    assert.deepEqual(first.ports, [{ label: "web", guestPort: 8080 }]);
    assert.deepEqual(first.outsidePorts, [20_001, 20_002, 9191]);
    const second = plan("two", ["admin"], [first]);
    assert.equal(second.index, 1);
    assert.notEqual(second.tap, first.tap);
    assert.throws(() => plan("three", ["web"], [first, second]), PortClaimedError);
  });

  it("the guest has the allocation's address first, and its routes by the gateway", () => {
    const guest = guestInterface(plan("one", []));
    assert.deepEqual([...(guest.addresses[0]?.address ?? [])], [172, 26, 64, 2]);
    assert.equal(guest.addresses[0]?.onLink, false);
    assert.equal(guest.routes.length, 4);
    assert.equal(guest.mtu, 1450);
  });

  it("a flood is dropped before anything else is looked at; a record without limits has none", () => {
    const limited = plan("one", []);
    const packets = guardRules(limited).filter((rule) => rule.startsWith("add rule"));
    assert.match(
      packets[0] ?? "",
      / limit rate over 200000\/second burst 200000 packets counter name flooded_\S+ drop$/,
    );
    const connections = egressRules(limited, ["ip daddr 169.254.169.254"]).filter((rule) => / egress_\S+ /.test(rule));
    assert.match(connections.find((rule) => rule.startsWith("add rule")) ?? "", / limit rate over 1000\/second /);
    const { limits: _, ...old } = limited;
    assert.ok(v.is(networkPlanSchema, old));
    assert.ok(![...guardRules(old), ...egressRules(old, [])].some((rule) => rule.includes("limit rate")));
  });

  it("cloud metadata is refused, unless the plugin's config allows it", () => {
    const nat: NatPlan = {
      mode: "nat",
      taskName: "one",
      allocId: "a",
      table: "litegix_test",
      ...leaseOf("10.207.31.6"),
      mtu: 1500,
      egress: { default: "allow", floor: [], deny: [], allow: [] },
      ports: [],
    };
    const rulesAboutIt = (allowMetadata: boolean): string[] =>
      natLines([nat], { allowMetadata }).filter((line) => /169\.254\.169\.254.*(reject|drop|refuse)/.test(line));
    assert.notEqual(rulesAboutIt(false).length, 0, natLines([nat], { allowMetadata: false }).join("\n"));
    assert.equal(rulesAboutIt(true).length, 0);
  });

  it("the rules of a namespace without VMs take the tables away", () => {
    assert.deepEqual(namespaceRules([], "litegix_test"), [
      "add table inet litegix_test",
      "delete table inet litegix_test",
      "add table netdev litegix_test",
      "delete table netdev litegix_test",
    ]);
  });

  it("a path that is no namespace is seen", async () => {
    assert.equal(await isNamespace("/proc/self/ns/net"), true);
    assert.equal(await isNamespace("/etc/hosts"), false);
    assert.equal(await isNamespace("/no/such/file"), false);
  });
});
