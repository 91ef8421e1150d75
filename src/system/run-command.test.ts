import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { CommandError } from "./errors.ts";
import { runCommand } from "./run-command.ts";

async function failure(options: Parameters<typeof runCommand>[0]): Promise<CommandError> {
  try {
    await runCommand(options);
  } catch (error) {
    assert.ok(error instanceof CommandError);
    assert.ok(!error.message.includes("\n"), "the message is one line");
    return error;
  }
  return assert.fail("the command did not fail");
}

test("gives both outputs", async () => {
  const output = await runCommand({ file: "sh", args: ["-c", "echo out; echo err >&2"], timeoutMs: 5_000 });
  assert.deepEqual(output, { stdout: "out\n", stderr: "err\n" });
});

test("feeds text, bytes and streams to stdin", async () => {
  async function* chunks(): AsyncGenerator<Uint8Array> {
    for (let index = 0; index < 64; index++) {
      await sleep(0);
      yield Buffer.alloc(32_768, "x");
    }
  }
  assert.equal((await runCommand({ file: "cat", args: [], input: "a b", timeoutMs: 5_000 })).stdout, "a b");
  const counted = await runCommand({ file: "wc", args: ["-c"], input: chunks(), timeoutMs: 5_000 });
  assert.equal(counted.stdout.trim(), String(64 * 32_768));
});

test("an unread stdin is not a failure", async () => {
  const input = "x".repeat(1 << 20);
  assert.equal((await runCommand({ file: "true", args: [], input, timeoutMs: 5_000 })).stdout, "");
});

test("a failing input stops the command and is the cause", async () => {
  async function* broken(): AsyncGenerator<Uint8Array> {
    yield Buffer.from("half");
    await sleep(10);
    throw new Error("layer is truncated");
  }
  const error = await failure({ file: "cat", args: [], input: broken(), timeoutMs: 5_000 });
  assert.match(error.message, /input failed: layer is truncated/);
  assert.equal((error.cause as Error).message, "layer is truncated");
});

test("names the command, its status and its output", async () => {
  const error = await failure({ file: "sh", args: ["-c", "echo no >&2; echo way >&2; exit 3"], timeoutMs: 5_000 });
  assert.equal(error.code, "command_failed");
  assert.match(error.message, /failed with status 3: no; way \(command_failed\)$/);
});

test("names the missing program", async () => {
  const error = await failure({ file: "/nonexistent/program", args: ["-x"], timeoutMs: 5_000 });
  assert.equal(error.code, "command_not_started");
  assert.match(error.message, /"\/nonexistent\/program -x" could not be started: no such program/);
});

test("keeps only the tail of a long output", async () => {
  const args = ["-c", "seq 1 100000"];
  const output = await runCommand({ file: "sh", args, timeoutMs: 5_000, maxOutputBytes: 16 });
  assert.equal(output.stdout, "9998\n99999\n100000\n".slice(-16));
});

test("stops at the deadline, also a child that ignores SIGTERM", async () => {
  const error = await failure({ file: "sh", args: ["-c", "trap '' TERM; while :; do :; done"], timeoutMs: 50 });
  assert.equal(error.code, "command_timed_out");
  assert.match(error.message, /did not end within 0\.05 s and was stopped \(command_timed_out\)$/);
});

test("stops on abort, before and after the start", async () => {
  const aborter = new AbortController();
  setTimeout(() => aborter.abort(new Error("enough")), 50);
  const running = await failure({ file: "sleep", args: ["10"], timeoutMs: 5_000, signal: aborter.signal });
  assert.equal(running.code, "command_aborted");
  const before = await failure({ file: "sleep", args: ["10"], timeoutMs: 5_000, signal: aborter.signal });
  assert.match(before.message, /stopped by its caller: enough/);
});

test("does not wait for a grandchild that holds the pipes", async () => {
  const started = Date.now();
  await runCommand({ file: "sh", args: ["-c", "sleep 8 & exit 0"], timeoutMs: 20_000 });
  assert.ok(Date.now() - started < 6_000);
});
