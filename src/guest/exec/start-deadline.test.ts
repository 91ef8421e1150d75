import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { create, toBinary } from "@bufbuild/protobuf";
import { FakeGuest } from "../../../test/fakes/fake-guest.ts";
import { ExitStatusSchema, FrameKind } from "../../gen/litegix/guest/v1/guest_pb.js";
import { GuestClient } from "../client.ts";
import { hostFrame } from "./frames.ts";
import type { ExecInput } from "./input.ts";
import { execInGuest } from "./session.ts";

async function* noInput(): AsyncGenerator<ExecInput> {}

/** Runs a session in a guest that answers statistics every half a second; gives its exit code. */
async function run(sessions: (socket: Socket) => void): Promise<number | undefined> {
  const directory = await mkdtemp(join(tmpdir(), "litegix-start-"));
  const socketPath = join(directory, "v.sock");
  await using _fake = await FakeGuest.start({
    socketPath,
    service: { hello: () => ({ generation: 1, bulkPort: 11, tellsLongStarts: true }), stats: () => ({}) },
    bulk: sessions,
  });
  using guest = new GuestClient({ vsockPath: socketPath });
  const others = setInterval(() => void guest.stats().catch(() => {}), 500);
  try {
    const { signal } = new AbortController();
    for await (const event of execInGuest({ guest, argv: ["x"], terminal: false, input: noInput(), signal })) {
      if (event.kind === "exited") return event.exitCode;
    }
    return undefined;
  } finally {
    clearInterval(others);
    await rm(directory, { recursive: true });
  }
}

function answer(socket: Socket, kind: FrameKind, payload = new Uint8Array()): void {
  for (const part of hostFrame(kind, payload)) socket.write(part);
}

describe("a session's start in a guest that answers others", { concurrency: true }, () => {
  it("is given up within five seconds where the guest says nothing of it", async () => {
    const startedMs = performance.now();
    await assert.rejects(
      run(() => {}),
      /the guest does not answer: exec: no answer within 4 s/,
    );
    assert.ok(performance.now() - startedMs < 5_000);
  });

  it("may take longer where the guest knows of it", async () => {
    const exitCode = await run((socket) => {
      void (async () => {
        await delay(1_000);
        answer(socket, FrameKind.TAKEN);
        await delay(5_000);
        answer(socket, FrameKind.STARTED);
        answer(socket, FrameKind.EXITED, toBinary(ExitStatusSchema, create(ExitStatusSchema, { exitCode: 3 })));
      })();
    });
    assert.equal(exitCode, 3);
  });
});
