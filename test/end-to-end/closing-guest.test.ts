// Driver and supervisor against a connection to the guest that breaks at any byte. The driver gets the answer or a
// typed error, never half an answer; the supervisor goes on at the byte where it stopped. Needs no VM: the guest is a
// unix socket.
import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  ExecStartedSchema,
  ExitStatusSchema,
  FrameKind,
  LogStream,
  LogsOpenSchema,
} from "../../src/gen/litegix/guest/v1/guest_pb.js";
import { GuestClient } from "../../src/guest/client.ts";
import { GuestRefusedError, GuestUnreachableError } from "../../src/guest/errors.ts";
import { execInGuest } from "../../src/guest/exec/session.ts";
import { ClosingProxy } from "../fakes/closing-proxy.ts";
import { FakeGuest } from "../fakes/fake-guest.ts";
import { bulk } from "../fakes/hostile-guest.ts";
import { endShim, startShim } from "./support/shim.ts";
import { waitFor } from "./support/wait.ts";

const deadlineMs = 7_000;
const openedByHost = 4;

let directory = "";
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "lgclose-"));
});
after(() => rm(directory, { recursive: true, force: true }));

let names = 0;
const newPath = (): string => join(directory, `${++names}`);

/**
 * Asks through a proxy that closes after 0 bytes, 1, 2... until one passes enough. Resolves with the number that did
 * not.
 */
async function askAtEachByte<T>(options: {
  guestPath: string;
  ask: (guest: GuestClient) => Promise<T>;
  expected: T;
}): Promise<number> {
  const { guestPath, ask, expected } = options;
  let failures = 0;
  const attempt = async (bytes: number): Promise<boolean> => {
    const socketPath = newPath();
    await using _proxy = await ClosingProxy.start({ socketPath, guestPath, bytesOf: () => bytes });
    using guest = new GuestClient({ vsockPath: socketPath, greeted: true });
    const started = performance.now();
    try {
      assert.deepEqual(await ask(guest), expected, `after ${bytes} bytes`);
      return true;
    } catch (error) {
      assert.ok(
        error instanceof GuestUnreachableError || error instanceof GuestRefusedError,
        `after ${bytes} bytes: ${String(error)}`,
      );
      failures += 1;
      return false;
    } finally {
      assert.ok(performance.now() - started < deadlineMs, `after ${bytes} bytes: ${performance.now() - started} ms`);
    }
  };
  const atOnce = 25;
  for (let bytes = 0; bytes < 5_000; bytes += atOnce) {
    const answered = await Promise.all(Array.from({ length: atOnce }, (_, more) => attempt(bytes + more)));
    if (answered.every(Boolean)) return failures;
  }
  throw new Error("5,000 bytes were not enough");
}

describe("a guest whose connection breaks at any byte", () => {
  it("a call has its answer or an error", async () => {
    const guestPath = newPath();
    await using _guest = await FakeGuest.start({
      socketPath: guestPath,
      service: { hello: () => ({ generation: 1, version: "9.9.9" }) },
    });
    const failures = await askAtEachByte({
      guestPath,
      ask: async (guest) => (await guest.hello()).version,
      expected: "9.9.9",
    });
    assert.ok(failures > 20, `${failures} failures`);
  });

  it("an exec session has the program's exit code or an error, never a code that the guest did not send", async () => {
    const guestPath = newPath();
    const answer = [
      bulk(FrameKind.STARTED, toBinary(ExecStartedSchema, create(ExecStartedSchema, { pid: 7 }))),
      bulk(FrameKind.STDOUT, Buffer.from("hello\n")),
      bulk(FrameKind.EXITED, toBinary(ExitStatusSchema, create(ExitStatusSchema, { exitCode: 3 }))),
    ];
    await using _guest = await FakeGuest.start({
      socketPath: guestPath,
      service: {},
      bulk: (socket) => socket.once("data", () => socket.end(Buffer.concat(answer))),
    });
    const failures = await askAtEachByte({
      guestPath,
      ask: async (guest) => {
        const seen: string[] = [];
        const exec = { guest, argv: ["x"], terminal: false, input: nothing(), signal: new AbortController().signal };
        for await (const frame of execInGuest(exec))
          seen.push(frame.kind === "exited" ? `exited ${frame.exitCode}` : frame.kind);
        return seen.join();
      },
      expected: "stdout,exited 3",
    });
    assert.ok(failures > 20, `${failures} failures`);
  });

  it("a log loses no byte and doubles none", async () => {
    const guestPath = newPath();
    const text = Buffer.from(Array.from({ length: 100 }, (_, line) => `line ${line}\n`).join(""));
    await using _guest = await FakeGuest.start({
      socketPath: guestPath,
      service: { wait: () => new Promise(() => {}) },
      bulk: (socket) => {
        socket.once("data", (open: Buffer) => {
          const { stream, from } = fromBinary(LogsOpenSchema, open.subarray(openedByHost));
          if (stream !== LogStream.STDOUT) return;
          for (let at = Number(from); at < text.length; at += 7)
            socket.write(bulk(FrameKind.DATA, text.subarray(at, at + 7)));
        });
      },
    });
    const socketPath = newPath();
    // The greeting, then up to four frames. Each connection passes one byte more than the one before.
    await using proxy = await ClosingProxy.start({ socketPath, guestPath, bytesOf: (connection) => connection % 60 });
    const shim = await startShim({ path: newPath(), vsockSocket: socketPath });
    try {
      await waitFor({
        what: "the whole log",
        timeoutMs: 60_000,
        attempt: async () => (await readFile(shim.stdoutPath)).length >= text.length || undefined,
        seen: async () => `${proxy.connections} connections; ${await readFile(shim.stdoutPath, "utf8")}`,
      });
      assert.equal(await readFile(shim.stdoutPath, "utf8"), text.toString());
      assert.ok(proxy.connections > 60, `${proxy.connections} connections`);
      assert.equal((await shim.client.status()).id, "a1b2c3d4");
    } finally {
      await endShim(shim);
    }
  });
});

async function* nothing(): AsyncGenerator<never> {}
