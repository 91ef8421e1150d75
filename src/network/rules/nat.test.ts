import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { natPlan } from "../../../test/fakes/network-plans.ts";
import { natRules } from "./nat.ts";

describe("the rules of the default network", () => {
  it("refuse cloud metadata unless the plugin's config allows it", () => {
    const rulesAboutIt = (allowMetadata: boolean): string[] =>
      natRules([natPlan()], { allowMetadata }).filter((line) => /169\.254\.169\.254.*goto refuse/.test(line));
    assert.equal(rulesAboutIt(false).length, 1);
    assert.equal(rulesAboutIt(true).length, 0);
  });
});
