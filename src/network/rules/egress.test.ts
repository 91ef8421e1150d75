import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { natPlan } from "../../../test/fakes/network-plans.ts";
import { parseEgressRule } from "../plan/egress-policy.ts";
import { egressChains, egressMatch } from "./egress.ts";

describe("egress chains", () => {
  it("match the address that the guest asked for", () => {
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

  it("limit connections before any other rule, if the plan has limits", () => {
    const rulesOf = (limits: { connections: number } | undefined): string[] =>
      egressChains(natPlan(limits === undefined ? {} : { limits }), ["ip daddr 169.254.169.254"]).filter((line) =>
        line.startsWith("add rule inet litegix_test egress_"),
      );
    assert.match(rulesOf({ connections: 1_000 })[0] ?? "", / limit rate over 1000\/second /);
    assert.ok(!rulesOf(undefined).some((rule) => rule.includes("limit rate")));
  });
});
