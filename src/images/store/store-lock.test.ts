import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm, stat } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { acquireLock } from "./store-lock.ts";

let directory: string;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "litegix-lock-"));
});
after(() => rm(directory, { recursive: true }));

const never = new AbortController().signal;

test("one holder at a time, in the same process too", async () => {
  const path = join(directory, "one");
  let holders = 0;
  let most = 0;
  const hold = async (): Promise<void> => {
    await using _lock = await acquireLock({ path, signal: never });
    holders++;
    most = Math.max(most, holders);
    await sleep(5);
    holders--;
  };
  await Promise.all(Array.from({ length: 8 }, hold));
  assert.equal(most, 1);
  assert.equal((await stat(path)).mode & 0o777, 0o600);
});

test("who waits can give up", async () => {
  const path = join(directory, "patience");
  await using _lock = await acquireLock({ path, signal: never });
  const reason = new Error("enough");
  const waiting = acquireLock({ path, signal: AbortSignal.any([AbortSignal.timeout(100)]) });
  await assert.rejects(waiting, { name: "TimeoutError" });
  await assert.rejects(acquireLock({ path, signal: AbortSignal.abort(reason) }), reason);
});

test("a killed holder leaves nothing", async () => {
  const path = join(directory, "killed");
  const script = `
    const { acquireLock } = await import(${JSON.stringify(join(import.meta.dirname, "store-lock.ts"))});
    await acquireLock({ path: ${JSON.stringify(path)}, signal: new AbortController().signal });
    console.log("held");
    setInterval(() => {}, 1000);`;
  const holder = spawn(process.execPath, ["--input-type=module", "-e", script], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await once(holder.stdout, "data");
  await assert.rejects(acquireLock({ path, signal: AbortSignal.timeout(100) }), { name: "TimeoutError" });
  holder.kill("SIGKILL");
  await using _lock = await acquireLock({ path, signal: AbortSignal.timeout(5_000) });
});

test("no socket in the kernel's abstract space, which has no owners, can stand in the way", async () => {
  const path = join(directory, "socket");

  const name = createHash("sha256").update(path).digest("hex").slice(0, 32);
  await using _squatter = createServer().listen(`\0litegix-${name}`);
  await using _lock = await acquireLock({ path, signal: AbortSignal.timeout(5_000) });
});
