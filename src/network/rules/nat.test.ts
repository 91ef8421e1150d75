import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { natPlan, openPolicy } from "../../../test/fakes/network-plans.ts";
import { parseEgressRule } from "../plan/egress-policy.ts";
import { natPolicy } from "./nat.ts";

const host = { uplinks: ["eth0"] };

describe("the rules of the default network", () => {
  it("refuse cloud metadata for the plan of an older driver, which does not list it", () => {
    const { hostAccess: _, ...old } = natPlan({ egress: { ...openPolicy, floor: [] } });
    assert.ok(natPolicy([old], host).some((line) => /169\.254\.169\.254.*goto refuse/.test(line)));
  });

  it("ask the policy only about services of the host that are open", () => {
    const rules = natPolicy([natPlan({ hostAccess: ["192.0.2.7:8080/tcp"].map(parseEgressRule) })], host);
    const chain = rules.filter((line) => line.startsWith("add rule inet litegix_test host_"));
    assert.equal(chain.length, 2);
    assert.match(chain[0] ?? "", /ip daddr 192\.0\.2\.7\/32 meta l4proto tcp ct original proto-dst 8080-8080 return$/);
    assert.match(chain[1] ?? "", / goto refuse_/);
  });
});
