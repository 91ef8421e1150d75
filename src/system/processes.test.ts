import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { it } from "node:test";
import { findByArgument, isAlive, ownIdentity, readUsage } from "./processes.ts";

it("a process is found by an argument of its own, and only while it runs", async () => {
  const argument = `/nowhere/${process.pid}/shim-config.json`;
  const child = spawn("sh", ["-c", "read line", "sh", argument], { stdio: ["pipe", "ignore", "ignore"] });
  await once(child, "spawn");
  const found = await findByArgument(argument);
  assert.equal(found?.pid, child.pid);
  assert.ok(found !== undefined && (await isAlive(found)));
  child.stdin.end();
  await once(child, "exit");
  assert.equal(await findByArgument(argument), undefined);
});

it("this process's own usage, near Node's own figures", async () => {
  const usage = readUsage(await ownIdentity());
  assert.ok(usage);
  const { user, system } = process.cpuUsage();
  assert.ok(Math.abs(usage.userMs + usage.systemMs - (user + system) / 1000) < 200);
  assert.ok(Math.abs(usage.residentBytes - process.memoryUsage.rss()) < 32 * 1024 * 1024);
});

it("another process of the same number does not count", async () => {
  assert.equal(readUsage({ pid: process.pid, startTime: "1" }), undefined);
  assert.equal(readUsage({ pid: 2 ** 22 + 1, startTime: "1" }), undefined);
});
