import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { it } from "node:test";
import { findByArgument, isAlive } from "./process-identity.ts";

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
