import assert from "node:assert/strict";
import { test } from "node:test";
import { ownIdentity } from "./process-identity.ts";
import { readUsage } from "./process-usage.ts";

test("this process's own use, near what Node says of it", async () => {
  const usage = readUsage(await ownIdentity());
  assert.ok(usage);
  const { user, system } = process.cpuUsage();
  assert.ok(Math.abs(usage.userMs + usage.systemMs - (user + system) / 1000) < 200);
  assert.ok(Math.abs(usage.residentBytes - process.memoryUsage.rss()) < 32 * 1024 * 1024);
});

test("another process of the same number is none", async () => {
  assert.equal(readUsage({ pid: process.pid, startTime: "1" }), undefined);
  assert.equal(readUsage({ pid: 2 ** 22 + 1, startTime: "1" }), undefined);
});
