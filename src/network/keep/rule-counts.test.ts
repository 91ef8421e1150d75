import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { countsOf, differences } from "./rule-counts.ts";

const lines = [
  "add table inet t",
  "add set inet t taps { type ifname; }",
  "add chain inet t forward { type filter hook forward priority filter; policy accept; }",
  "flush chain inet t forward",
  'add rule inet t forward iifname "a" accept',
  'add rule inet t forward iifname "a" accept',
  "add chain inet t empty",
  'add element inet t taps { "lg1" }',
  'add element inet t taps { "lg1" }',
];

describe("the rules that must be there", () => {
  it("are counted in each chain and set", () => {
    const { chains, sets } = countsOf(lines);
    assert.deepEqual(Object.fromEntries(chains), { "inet t forward": 2, "inet t empty": 0 });
    assert.deepEqual(Object.fromEntries(sets), { "inet t taps": 1 });
  });

  it("differ if a chain has another number of them, or a set too few elements", () => {
    const wanted = countsOf(lines);
    const there = (rules: number, elements: number) => ({
      chains: new Map([
        ["inet t forward", rules],
        ["inet t empty", 0],
        ["inet t other", 3],
      ]),
      sets: new Map([["inet t taps", elements]]),
    });
    assert.deepEqual(differences(wanted, there(2, 2)), []);
    assert.deepEqual(differences(wanted, there(0, 1)), ["inet t forward"]);
    assert.deepEqual(differences(wanted, there(2, 0)), ["inet t taps"]);
    assert.equal(differences(wanted, { chains: new Map(), sets: new Map() }).length, 3);
  });
});
