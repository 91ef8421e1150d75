import assert from "node:assert/strict";
import { test } from "node:test";
import { isAllowed, normalise } from "./spdx.ts";

const allowed = new Set(["MIT", "BSD-3-Clause", "Apache-2.0 WITH LLVM-exception"]);

test("an expression is allowed if one of its ways is allowed in whole", () => {
  for (const good of [
    "MIT",
    "GPL-3.0 OR MIT",
    "GPL-3.0/MIT",
    "MIT AND BSD-3-Clause",
    "(GPL-2.0 OR MIT) AND BSD-3-Clause",
    "Apache-2.0 WITH LLVM-exception",
  ]) {
    assert.equal(isAllowed(good, allowed), true, good);
  }
  for (const bad of [
    "GPL-3.0",
    "MIT AND GPL-3.0",
    "Apache-2.0",
    "MIT AND (GPL-2.0 OR ISC)",
    "UNLICENSED",
    "MIT WITH x",
  ]) {
    assert.equal(isAllowed(bad, allowed), false, bad);
  }
});

test("an expression that is not one fails", () => {
  for (const broken of ["", "(MIT", "MIT MIT", "MIT OR"])
    assert.throws(() => isAllowed(broken, allowed), Error, broken);
});

test("old forms become today's", () => {
  assert.deepEqual(["MIT/Apache-2.0", "Apache-2.0 / MIT", "(MIT)", "(A OR B) AND (C)"].map(normalise), [
    "MIT OR Apache-2.0",
    "Apache-2.0 OR MIT",
    "MIT",
    "(A OR B) AND (C)",
  ]);
});
