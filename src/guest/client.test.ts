import assert from "node:assert/strict";
import { test } from "node:test";
import { Code, ConnectError } from "@connectrpc/connect";
import { connectedGuest, hello, socketPath } from "../../test/fakes/connected-guest.ts";
import { FakeGuest } from "../../test/fakes/fake-guest.ts";
import { GuestClient } from "./client.ts";
import { GuestRefusedError } from "./errors.ts";
import type { ExecInput } from "./exec/input.ts";
import { execInGuest } from "./exec/session.ts";

test("hello: the guest's facts in plain types", async (context) => {
  const { guest } = await connectedGuest(context, { service: { hello: () => hello } });
  assert.deepEqual(await guest.hello(), { version: "0.1.0", kernelRelease: "6.1", state: "booted", uptimeMs: 5 });
});

async function* nothing(): AsyncGenerator<ExecInput> {}

test("generations: the driver reports an incompatible guest's words and asks it nothing else", async (context) => {
  let signals = 0;
  const signal = () => {
    signals += 1;
    return {};
  };
  // A newer guest that no longer speaks the driver's generation refuses as crates/init does (generation.rs).
  const newer = await connectedGuest(context, {
    service: {
      signal,
      hello: ({ generationMin, generationMax }) => {
        const text = `the guest speaks generations 4 to 5 of its protocol, the driver ${generationMin} to ${generationMax}`;
        throw new ConnectError(text, Code.FailedPrecondition);
      },
    },
  });
  // A guest that answers with a generation that the driver does not speak.
  const older = await connectedGuest(context, { service: { signal, hello: () => ({ ...hello, generation: 0 }) } });
  for (const [{ guest }, says] of [
    [
      newer,
      "the guest speaks generations 4 to 5 of its protocol, the driver 1 to 1: restart the task (guest_incompatible)",
    ],
    [older, "the guest speaks generation 0 of its protocol, the driver 1 to 1: restart the task (guest_incompatible)"],
  ] as const) {
    const refused = { code: "guest_incompatible", message: says };
    await assert.rejects(guest.hello(), refused);
    await assert.rejects(guest.sendSignal({ signalNumber: 1 }), refused);
    const session = execInGuest({
      guest,
      argv: ["x"],
      terminal: false,
      input: nothing(),
      signal: new AbortController().signal,
    });
    await assert.rejects(session.next(), refused);
  }
  assert.equal(signals, 0);
});

test("generations: a driver that speaks several uses the guest's", async (context) => {
  const path = await socketPath(context);
  const asked: number[][] = [];
  await using _fake = await FakeGuest.start({
    socketPath: path,
    service: {
      hello: ({ generationMin, generationMax }) => {
        asked.push([generationMin, generationMax]);
        return { ...hello, generation: 2 };
      },
      signal: () => ({}),
    },
  });
  using guest = new GuestClient({ vsockPath: path, generations: { min: 2, max: 4 } });
  await guest.sendSignal({ signalNumber: 1 });
  await guest.sendSignal({ signalNumber: 1 });
  assert.deepEqual(asked, [[2, 4]]);
});

test("waitUntilReady: tries until the guest listens, and gives up at its deadline", async (context) => {
  let attempts = 0;
  const { guest } = await connectedGuest(context, {
    service: { hello: () => hello },
    answer: () => (++attempts < 3 ? "NO\n" : "OK 1\n"),
  });
  const { signal } = new AbortController();
  assert.equal((await guest.waitUntilReady({ timeoutMs: 5000, signal })).state, "booted");
  const nobody = new GuestClient({ vsockPath: await socketPath(context) });
  await assert.rejects(nobody.waitUntilReady({ timeoutMs: 50, signal }), /its agent did not come up within 0.1 s/);
});

test("a refusal has the guest's reason and its cleaned words", async (context) => {
  const { guest } = await connectedGuest(context, {
    service: {
      start: () => {
        throw new ConnectError('exec: "foo"\u001b[31m\nnot found', Code.NotFound);
      },
    },
  });
  await assert.rejects(guest.start(), (error: unknown) => {
    assert.ok(error instanceof GuestRefusedError);
    assert.equal(error.reason, "not_found");
    assert.equal(error.message, 'exec: "foo" [31m; not found (guest_refused)');
    return true;
  });
});
