import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { natPlan } from "../../../test/fakes/network-plans.ts";
import { parseEgressRule } from "../plan/egress-policy.ts";
import type { NatPlan } from "../plan/network-plan.ts";
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
    const rulesOf = (limits: NatPlan["limits"]): string[] =>
      egressChains(natPlan({ limits }), { toHost: [], open: [], refused: ["ip daddr 10.0.0.1"] }).filter((line) =>
        line.startsWith("add rule inet litegix_test "),
      );
    const limited = rulesOf({ connections: 1_000, open: 500 });
    const inChain = (name: string): string[] => limited.filter((rule) => rule.includes(` ${name}_lg0acf1f06 `));
    assert.match(inChain("limit")[0] ?? "", / limit rate over 1000\/second /);
    assert.match(
      inChain("limit")[1] ?? "",
      / add @connections \{ iifname ct count over 500 \} counter name excess_\w+ drop$/,
    );
    assert.match(inChain("arrive")[0] ?? "", / add @connections \{ oifname ct count over 500 \}/);
    assert.match(limited.find((rule) => rule.includes(" egress_")) ?? "", / jump limit_lg0acf1f06$/);
    assert.ok(!rulesOf(undefined).some((rule) => /limit rate|ct count/.test(rule)));
  });
});
