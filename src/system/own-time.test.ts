import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { describe, it } from "node:test";
import fc from "fast-check";
import { OwnTimeDeadline, ownTime } from "./own-time.ts";

const waits = (...values: number[]): Map<string, number> =>
  new Map(values.map((value, index): [string, number] => [`${index}`, value]));

describe("a process's own time", () => {
  it("is the clock's, less the longest wait of a thread", () => {
    assert.equal(ownTime({ elapsedMs: 200, before: waits(5, 100), after: waits(25, 250) }), 50);
    assert.equal(ownTime({ elapsedMs: 200, before: waits(5), after: waits(5) }), 200);
  });

  it("does not begin before a thread does", () => {
    assert.equal(ownTime({ elapsedMs: 200, before: waits(0), after: waits(0, 900) }), 200);
  });

  it("does not pass while this process is held up", () => {
    assert.equal(ownTime({ elapsedMs: 60_000, before: waits(0), after: waits(0) }), 400);
  });

  it("is given back when a wait ends that was longer than the interval", () => {
    assert.equal(ownTime({ elapsedMs: 200, before: waits(0), after: waits(1000) }), -800);
  });

  it("is never more than the clock's", () => {
    const some = fc.array(fc.nat(100_000), { maxLength: 4 }).map((values) => waits(...values));
    fc.assert(
      fc.property(fc.nat(1000), some, some, (elapsedMs, before, after) => {
        assert.ok(ownTime({ elapsedMs, before, after }) <= elapsedMs);
      }),
    );
  });

  it("ends for a process that sleeps, and for one that is gone", async () => {
    const child = spawn("sleep", ["60"]);
    using sleeping = new OwnTimeDeadline({ pid: child.pid ?? 0, timeoutMs: 300 });
    await once(sleeping.signal, "abort");
    assert.match(String(sleeping.signal.reason), /^Error: 0\.\d s have passed/);
    child.kill("SIGKILL");
    await once(child, "exit");
    using gone = new OwnTimeDeadline({ pid: child.pid ?? 0, timeoutMs: 300 });
    await once(gone.signal, "abort");
  });
});
