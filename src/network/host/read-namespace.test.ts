import assert from "node:assert/strict";
import { test } from "node:test";
import { isNamespace } from "./read-namespace.ts";

test("a path that is not a namespace is recognised", async () => {
  assert.equal(await isNamespace("/proc/self/ns/net"), true);
  assert.equal(await isNamespace("/etc/hosts"), false);
  assert.equal(await isNamespace("/no/such/file"), false);
});
