// Driver and supervisor against compromised guests. Every behaviour ends in a typed error within its deadline, memory
// stays bounded, the supervisor goes on answering, and another VM's logs go on meanwhile. Needs no VM: the guest is a
// unix socket.
import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { GuestClient } from "../../src/guest/client.ts";
import { GuestRefusedError, GuestUnreachableError } from "../../src/guest/errors.ts";
import { execInGuest } from "../../src/guest/exec/session.ts";
import { FakeGuest } from "../fakes/fake-guest.ts";
import { behaviours, bulk } from "../fakes/hostile-guest.ts";
import { HostileGuests } from "../fakes/hostile-guests.ts";
import { inRig } from "./support/environment.ts";
import { endShim, startShim } from "./support/shim.ts";
import { waitFor } from "./support/wait.ts";

/**
 * For two dozen guests that flood at once for seconds: they send gigabytes, and memory not yet collected counts too.
 */
const driverGrowthBytes = 384 * 1024 * 1024;
const shimPeakKb = 24 * 1024;
/** Less than the driver's own 15 s, so that the test ends sooner. */
const firstAnswerMs = 3_500;
/** A call's deadline (5 s), and two dozen guests beside it on the same CPUs. The rig's CPUs are twenty times slower. */
const maxMs = inRig ? 30_000 : 7_000;

let directory = "";
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "lghost-"));
});
after(() => rm(directory, { recursive: true, force: true }));

const hostiles = new HostileGuests();
after(() => hostiles[Symbol.asyncDispose]());

let names = 0;
const newPath = (): string => join(directory, `${++names}`);

async function peakKb(pid: number | undefined): Promise<number> {
  return Number(/^VmHWM:\s+(\d+) kB/m.exec(await readFile(`/proc/${pid}/status`, "utf8"))?.[1]);
}

async function fails(what: string, run: () => Promise<unknown>): Promise<void> {
  const started = performance.now();
  await assert.rejects(run(), (error: unknown) => {
    assert.ok(
      error instanceof GuestUnreachableError || error instanceof GuestRefusedError,
      `${what}: ${String(error)}`,
    );
    assert.ok(error.message.length < 500, `${what}: ${error.message.length} bytes of message`);
    return true;
  });
  const elapsedMs = performance.now() - started;
  assert.ok(elapsedMs < maxMs, `${what}: ${elapsedMs} ms`);
}

async function* manyInputs(): AsyncGenerator<{ kind: "stdin"; data: Uint8Array }> {
  for (let count = 0; count < 4_000; count++) yield { kind: "stdin", data: Buffer.alloc(4096) };
}

async function exhaust(source: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of source);
}

describe("a compromised guest", () => {
  it("costs the driver an error within seconds and bounded memory, whatever it does", async () => {
    const memoryBefore = process.memoryUsage.rss();
    // All at once: one must not delay another, and the deadlines pass together.
    await Promise.all(
      [...behaviours.keys()].map(async (name) => {
        const socketPath = newPath();
        await using _hostile = await hostiles.play({ socketPath, behaviour: name });
        using guest = new GuestClient({ vsockPath: socketPath, firstAnswerMs });
        const { signal } = new AbortController();
        const exec = { guest, argv: ["x"], terminal: false, input: manyInputs(), signal };
        await Promise.all([
          fails(`${name}: hello`, () => guest.hello()),
          fails(`${name}: stats`, () => guest.stats()),
          fails(`${name}: exec`, () => exhaust(execInGuest(exec))),
        ]);
      }),
    );
    const growth = process.memoryUsage.rss() - memoryBefore;
    assert.ok(growth < driverGrowthBytes, `${growth} bytes`);
  });

  it("costs an exec session no more after a correct greeting", async () => {
    const memoryBefore = process.memoryUsage.rss();
    await Promise.all(
      [...behaviours.keys()].map(async (name) => {
        const socketPath = newPath();
        await using _hostile = await hostiles.play({ socketPath, behaviour: name });
        using guest = new GuestClient({ vsockPath: socketPath, greeted: true, firstAnswerMs });
        const { signal } = new AbortController();
        const exec = { guest, argv: ["x"], terminal: false, input: manyInputs(), signal };
        await fails(name, () => exhaust(execInGuest(exec)));
      }),
    );
    const growth = process.memoryUsage.rss() - memoryBefore;
    assert.ok(growth < driverGrowthBytes, `${growth} bytes`);
  });

  it("does not end its supervisor or make it grow, and another VM's logs go on", async () => {
    const honestPath = newPath();
    let line = 0;
    await using _honest = await FakeGuest.start({
      socketPath: honestPath,
      service: { wait: () => new Promise(() => {}) },
      bulk: (socket) => {
        socket.once("data", (open: Buffer) => {
          // LogsOpen, whose stream is stdout and whose offset is 0.
          if (!open.equals(bulk(2, Buffer.from([8, 1])))) return;
          const timer = setInterval(() => socket.write(bulk(20, Buffer.from(`line ${++line}\n`))), 50);
          socket.once("close", () => clearInterval(timer));
        });
      },
    });
    const honest = await startShim({ path: newPath(), vsockSocket: honestPath });
    const lines = async (): Promise<number> => (await readFile(honest.stdoutPath, "utf8")).split("\n").length - 1;
    try {
      await waitFor({
        what: "the first line",
        timeoutMs: 10_000,
        attempt: async () => (await lines()) > 0 || undefined,
      });
      const before = await lines();
      const meet = async (name: string): Promise<void> => {
        const socketPath = newPath();
        await using hostile = await hostiles.play({ socketPath, behaviour: name });
        const shim = await startShim({ path: newPath(), vsockSocket: socketPath });
        try {
          await waitFor({
            what: `${name}: a few connections`,
            timeoutMs: 20_000,
            // Guests that stay silent keep their connections.
            attempt: () => hostile.connections >= 3 || undefined,
          });
          await new Promise((resolve) => setTimeout(resolve, 1_500));
          assert.equal((await shim.client.status()).id, "a1b2c3d4", name);
          assert.equal(shim.process.exitCode, null, name);
          const peak = await peakKb(shim.process.pid);
          assert.ok(peak < shimPeakKb, `${name}: ${peak} kB`);
        } finally {
          await endShim(shim);
        }
      };
      // A few at a time: each has a supervisor, and the honest one must get its turn.
      const all = [...behaviours.keys()];
      while (all.length > 0) {
        const results = await Promise.allSettled(all.splice(0, 4).map(meet));
        for (const result of results) if (result.status === "rejected") throw result.reason;
      }
      await waitFor({
        what: "the other VM's log to go on",
        timeoutMs: 20_000,
        attempt: async () => (await lines()) >= before + 10 || undefined,
        seen: async () => `${before} lines before, ${await lines()} now`,
      });
      const text = (await readFile(honest.stdoutPath, "utf8")).split("\n").slice(0, -1);
      assert.deepEqual(
        text,
        text.map((_, index) => `line ${index + 1}`),
      );
    } finally {
      await endShim(honest);
    }
  });

  it("can't make the supervisor write bytes out of order, or an impossible record", async () => {
    const socketPath = newPath();
    // An unknown kind, a frame that is too long, another stream's, an end with data.
    const pieces = [
      bulk(99, Buffer.from("unknown")),
      bulk(20, Buffer.alloc(300_000, "x")),
      bulk(17, Buffer.from("a session's")),
      bulk(21, Buffer.from("more")),
    ];
    let next = 0;
    let told = false;
    await using _guest = await FakeGuest.start({
      socketPath,
      bulk: (socket) => socket.once("data", () => socket.write(pieces[next++ % pieces.length] ?? "")),
      service: {
        wait: async () => {
          await waitFor({ what: "all pieces", timeoutMs: 10_000, attempt: () => next > 8 || undefined });
          told = true;
          return {
            status: { exitCode: -5, signal: 4_000, finishedAtUnixNs: -1n, startedAtUnixNs: -1n },
          };
        },
      },
    });
    const shim = await startShim({ path: newPath(), vsockSocket: socketPath });
    try {
      await waitFor({ what: "the end to be reported", timeoutMs: 20_000, attempt: () => told || undefined });
      assert.equal(await readFile(shim.stdoutPath, "utf8"), "");
      shim.process.kill("SIGTERM");
      await new Promise((resolve) => shim.process.once("exit", resolve));
      const record = JSON.parse(await readFile(shim.stdoutPath.replace(/\.out$/, ".exit"), "utf8")) as {
        task: { exit_code: number; signal: number } | null;
      };
      if (record.task !== null) assert.deepEqual([record.task.exit_code, record.task.signal], [0, 64]);
    } finally {
      shim.client[Symbol.dispose]();
      shim.process.kill("SIGKILL");
    }
  });
});
