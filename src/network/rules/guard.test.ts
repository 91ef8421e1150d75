import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { natPlan } from "../../../test/fakes/network-plans.ts";
import type { FloodLimits } from "../plan/network-plan.ts";
import { guardRules } from "./guard.ts";

describe("the guard", () => {
  const rulesOf = (limits: FloodLimits): string[] => {
    const plan = natPlan({ limits });
    return guardRules(plan, { ipv4: [plan.address], ipv6: undefined, refused: [] }).filter((line) =>
      line.startsWith("add rule"),
    );
  };

  it("drops a flood before it looks at anything else", () => {
    assert.match(
      rulesOf({ packets: 200_000 })[0] ?? "",
      / limit rate over 200000\/second burst 200000 packets counter name flooded_\S+ drop$/,
    );
  });

  it("has no limit if the plan has none", () => {
    assert.ok(!rulesOf({}).some((rule) => rule.includes("limit rate")));
  });
});
