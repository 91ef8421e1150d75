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

const firstAnswerMs = 1_000;

/** Runs a session in a guest that answers statistics several times a second; gives its exit code. */
async function run(sessions: (socket: Socket) => void): Promise<number | undefined> {
  const directory = await mkdtemp(join(tmpdir(), "litegix-start-"));
  const socketPath = join(directory, "v.sock");
  await using _fake = await FakeGuest.start({
    socketPath,
    service: { stats: () => ({}) },
    bulk: sessions,
  });
  using guest = new GuestClient({ vsockPath: socketPath, firstAnswerMs });
  const others = setInterval(() => void guest.stats().catch(() => {}), 200);
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
  it("is given up if the guest says nothing of it", async () => {
    await assert.rejects(
      run(() => {}),
      /the guest does not answer: exec: no answer within \d+ s/,
    );
  });

  it("may take longer if the guest knows of it", async () => {
    const exitCode = await run((socket) => {
      void (async () => {
        await delay(firstAnswerMs / 2);
        answer(socket, FrameKind.TAKEN);
        await delay(firstAnswerMs * 2);
        answer(socket, FrameKind.STARTED);
        answer(socket, FrameKind.EXITED, toBinary(ExitStatusSchema, create(ExitStatusSchema, { exitCode: 3 })));
      })();
    });
    assert.equal(exitCode, 3);
  });
});
