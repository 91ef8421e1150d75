import assert from "node:assert/strict";
import { test } from "node:test";
import { connectedGuest } from "../../test/fakes/connected-guest.ts";
import { dial } from "./dial.ts";
import { GuestUnreachableError } from "./errors.ts";

for (const [name, answer] of [
  ["an answer that is not OK", () => "NO\n"],
  ["an endless line", () => "OK ".padEnd(5000, "1")],
] as const) {
  test(`dial: ${name} is refused`, async (context) => {
    const { path } = await connectedGuest(context, { service: {}, answer });
    await assert.rejects(dial({ socketPath: path, port: 10, timeoutMs: 1000 }), GuestUnreachableError);
  });
}

test("dial: silence ends at the deadline, a signal ends it at once, no socket is an error", async (context) => {
  const { path } = await connectedGuest(context, { service: {}, answer: () => undefined });
  await assert.rejects(dial({ socketPath: path, port: 10, timeoutMs: 50 }), /no connection within 50 ms/);
  const signal = AbortSignal.abort(new Error("stopped"));
  await assert.rejects(dial({ socketPath: path, port: 10, timeoutMs: 5000, signal }), /stopped/);
  await assert.rejects(dial({ socketPath: `${path}.none`, port: 10, timeoutMs: 5000 }), /ENOENT/);
});
