// The guest's wall clock stays within 10 ms of the host's, whatever sets one of them wrong.
import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { createClient, type ServiceImpl } from "@connectrpc/connect";
import { Guest } from "../../src/gen/litegix/guest/v1/guest_pb.js";
import { guestPort } from "../../src/guest/client.ts";
import { dial } from "../../src/guest/dial.ts";
import { GrpcConnection } from "../../src/system/grpc-connection.ts";
import { FakeGuest } from "../fakes/fake-guest.ts";
import { type Allocation, runService } from "./support/allocation.ts";
import { runSuccessfully } from "./support/command.ts";
import { inRig, skipVms, vmm } from "./support/environment.ts";
import { Fixture } from "./support/fixture.ts";
import { machineOf } from "./support/machines.ts";
import { endShim, type RunningShim, startShim } from "./support/shim.ts";
import { waitFor } from "./support/wait.ts";

const promisedMs = 10;
const nowMs = (): number => performance.timeOrigin + performance.now();

describe("the supervisor and a fake guest that only tells the time", () => {
  let directory = "";
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), "lgclock-"));
  });
  after(() => rm(directory, { recursive: true, force: true }));

  async function startPair(
    name: string,
    clock: ServiceImpl<typeof Guest>["clock"],
  ): Promise<{ readonly shim: RunningShim } & AsyncDisposable> {
    await using stack = new AsyncDisposableStack();
    const socketPath = join(directory, name);
    stack.use(await FakeGuest.start({ socketPath, service: { wait: () => new Promise(() => {}), clock } }));
    const shim = await startShim({ path: join(directory, `shim-of-${name}`), vsockSocket: socketPath });
    stack.defer(() => endShim(shim));
    const owned = stack.move();
    return { shim, [Symbol.asyncDispose]: () => owned.disposeAsync() };
  }

  it("subtracts the round trip, distrusts slow answers, and corrects a wrong clock again and again", async () => {
    let offsetMs = 3_600_000;
    const adjustments: number[] = [];
    let asked = 0;
    await using pair = await startPair("guest", async ({ adjustNs }) => {
      offsetMs += Number(adjustNs) / 1e6;
      if (adjustNs !== 0n) adjustments.push(Number(adjustNs) / 1e6);
      const unixNs = BigInt(Math.round((nowMs() + offsetMs) * 1000)) * 1000n;
      // As if the VM stood still between the measurement and the answer.
      asked += 1;
      if (asked % 3 === 1) await delay(50);
      return { unixNs };
    });
    for (const wrongBy of [undefined, -5_000, 40]) {
      if (wrongBy !== undefined) offsetMs += wrongBy;
      // On a slow machine the round trips may take longer than the supervisor lets a call wait.
      const { uncertaintyMs } = await waitFor({
        what: "a look at the clock",
        timeoutMs: 20_000,
        attempt: () => pair.shim.client.syncClock(AbortSignal.timeout(10_000)).catch(() => undefined),
      });
      await waitFor({
        what: "the clock to be right",
        timeoutMs: 5_000,
        attempt: () => Math.abs(offsetMs) < promisedMs + uncertaintyMs || undefined,
        seen: () => `${offsetMs} ms, ${uncertaintyMs} ms uncertain, ${adjustments.join(" ")}`,
      });
    }
    // Unasked too.
    offsetMs += 60_000;
    await waitFor({
      what: "the clock to be right by itself",
      timeoutMs: 20_000,
      attempt: () => Math.abs(offsetMs) < 10 * promisedMs || undefined,
      seen: () => `${offsetMs} ms`,
    });
    assert.ok(adjustments.length >= 4, adjustments.join(" "));
  });

  it("asks a slow guest only a few times", async () => {
    let asked = 0;
    await using pair = await startPair("slow", async () => {
      asked += 1;
      await delay(60);
      return { unixNs: BigInt(Math.round(nowMs() * 1000)) * 1000n };
    });
    await pair.shim.client.syncClock(AbortSignal.timeout(20_000));
    // One look.
    assert.equal(asked, 4);
  });

  it("leaves a guest that follows the host by itself alone", async () => {
    const asked: bigint[] = [];
    await using pair = await startPair("following", ({ adjustNs }) => {
      asked.push(adjustNs);
      return { unixNs: BigInt(Math.round(nowMs() + 60_000)) * 1_000_000n, followsHost: true };
    });
    await pair.shim.client.syncClock(AbortSignal.timeout(20_000));
    assert.deepEqual(asked, [0n]);
  });

  it("asks again, on another connection, a guest that was silent once", async () => {
    let asked = 0;
    await using pair = await startPair("once", () => {
      asked += 1;
      if (asked === 1) return new Promise<never>(() => {});
      return { unixNs: BigInt(Math.round(nowMs() * 1000)) * 1000n };
    });
    await waitFor({
      what: "a look at the clock",
      timeoutMs: 30_000,
      attempt: () =>
        pair.shim.client.syncClock(AbortSignal.timeout(10_000)).then(
          () => true,
          () => undefined,
        ),
      seen: () => `${asked} times asked`,
    });
  });

  it("stops asking a guest that keeps it waiting, and reports that it can't set the clock", async () => {
    let asked = 0;
    await using pair = await startPair("silent", () => {
      asked += 1;
      return new Promise(() => {});
    });
    await assert.rejects(pair.shim.client.syncClock(AbortSignal.timeout(10_000)), /does not report its time/);
    assert.equal(asked, 1);
  });
});

describe("a guest's clock", { skip: skipVms }, () => {
  const fixture = Fixture.use();
  let allocation: Allocation;
  let vsockPath: string;
  before(async () => {
    await fixture.ready();
    allocation = await runService({
      agent: fixture.agent,
      config: `image = "busybox:latest"\ncap_add = ["sys_time"]
        command = "/bin/sh"\nargs = ["-c", "echo $EPOCHREALTIME; exec sleep 1d"]`,
    });
    const { directory } = await machineOf(allocation);
    ({ vsockPath } = JSON.parse(await readFile(join(directory, "machine.json"), "utf8")) as { vsockPath: string });
  });

  const connect = (): GrpcConnection =>
    new GrpcConnection({
      open: (signal) => dial({ socketPath: vsockPath, port: guestPort, timeoutMs: 10_000, signal }),
      maxMessageBytes: 64 * 1024,
    });

  /** The guest's clock's lead, and the uncertainty of it: from the shortest of many round trips. */
  async function look(): Promise<{ offsetMs: number; uncertaintyMs: number }> {
    using connection = connect();
    const client = createClient(Guest, connection.transport);
    let best = { offsetMs: 0, uncertaintyMs: Number.POSITIVE_INFINITY };
    for (let sample = 0; sample < 30; sample++) {
      const sent = Date.now();
      const started = performance.now();
      const { unixNs } = await client.clock({}, { timeoutMs: 10_000 });
      const uncertaintyMs = (performance.now() - started) / 2;
      if (uncertaintyMs < best.uncertaintyMs)
        best = { offsetMs: Number(unixNs) / 1e6 - sent - uncertaintyMs, uncertaintyMs };
    }
    return best;
  }

  async function becomesRight(timeoutMs: number): Promise<void> {
    let last = { offsetMs: 0, uncertaintyMs: 0 };
    await waitFor({
      what: "the guest's clock to be right",
      timeoutMs,
      attempt: async () => {
        last = await look();
        // `sent` is in whole milliseconds.
        return Math.abs(last.offsetMs) <= promisedMs + last.uncertaintyMs + 1 || undefined;
      },
      seen: () => JSON.stringify(last),
    });
    console.log(`clock: ${JSON.stringify(last)}`);
  }

  it("is right when the task starts", async () => {
    const [, seconds = ""] = await allocation.waitForLog(/^(\d+\.\d+)$/m);
    const started = Date.parse((await allocation.document()).TaskStates?.["main"]?.StartedAt ?? "");
    assert.ok(Math.abs(Number(seconds) * 1000 - started) < 15_000, `${seconds}, ${started}`);
    await becomesRight(5_000);
  });

  it("is read from the hypervisor by Firecracker's guests", {
    skip:
      vmm === "firecracker" && inRig ? false : "only on Firecracker, on a host whose clock source is known: test/rig's",
  }, async () => {
    using connection = connect();
    const { followsHost } = await createClient(Guest, connection.transport).clock({}, { timeoutMs: 10_000 });
    assert.equal(followsHost, true);
  });

  for (const difference of [3600, -3600]) {
    it(`set wrong by the task by ${difference} s is put right`, async () => {
      const { exitCode, stderr } = await allocation.exec([
        ...["/bin/sh", "-c", `date -s @$(($(date +%s) + ${difference}))`],
      ]);
      assert.equal(exitCode, 0, stderr);
      await becomesRight(25_000);
    });
  }

  it("is right soon after its VM was paused", async () => {
    const { vmmPid } = await machineOf(allocation);
    process.kill(vmmPid, "SIGSTOP");
    await delay(3_000);
    process.kill(vmmPid, "SIGCONT");
    await becomesRight(25_000);
  });

  it("follows the host's clock when that is set", {
    skip: inRig ? false : "only in test/rig's machine, whose clock the test may set",
  }, async () => {
    for (const difference of [300, -300]) {
      await runSuccessfully({ file: "date", args: ["-s", `@${Math.round(Date.now() / 1000) + difference}`] });
      await becomesRight(25_000);
    }
  });
});
