// Sessions that can't start: a task that has not started or has ended, no command, a guest whose agent does not answer.
// Each ends in an error that says so within five seconds; a silent guest gets 15, because its host may only be busy.
import assert from "node:assert/strict";
import { createServer, type Server } from "node:net";
import { after, before, describe, it } from "node:test";
import { type Allocation, runService, startJob } from "./support/allocation.ts";
import { skipVms } from "./support/environment.ts";
import { ExecSession } from "./support/exec-session.ts";
import { Fixture } from "./support/fixture.ts";
import { machineOf } from "./support/machines.ts";
import { waitFor } from "./support/wait.ts";

const maxMs = 5_000;
const firstAnswerMs = 15_000;

const fixture = Fixture.use();
let allocation: Allocation;
let silentRegistry: Server;
let pulls = 0;

before(async () => {
  silentRegistry = createServer((socket) => {
    pulls += 1;
    socket.on("error", () => {});
  });
  if (skipVms !== false) return;
  await new Promise<void>((resolve) => silentRegistry.listen(0, "127.0.0.1", resolve));
  await fixture.ready();
  allocation = await runService({
    agent: fixture.agent,
    config: 'image = "busybox:latest"\ncommand = "sleep"\nargs = ["1d"]',
    task: 'kill_timeout = "1s"',
  });
});
after(() => silentRegistry.close());

async function refused(allocation: Allocation, says: RegExp, waitMs = 0): Promise<void> {
  const { exitCode, stderr, stdout, elapsedMs } = await allocation.exec(["true"], { timeoutMs: 30_000 });
  assert.notEqual(exitCode, 0);
  assert.equal(stdout, "");
  assert.match(stderr, says);
  assert.ok(elapsedMs >= waitMs && elapsedMs < waitMs + maxMs, `after ${elapsedMs} ms: ${stderr}`);
}

describe("nomad alloc exec", { skip: skipVms }, () => {
  it("into a task that has not started: its image is still being pulled", async () => {
    const { port } = silentRegistry.address() as { port: number };
    const pending = await startJob({
      agent: fixture.agent,
      config: `image = "127.0.0.1:${port}/slow:v1"\nimage_pull_timeout = "20s"\ncommand = "true"`,
    });
    await waitFor({
      what: "the pull to begin",
      timeoutMs: 30_000,
      attempt: () => pulls > 0 || undefined,
      seen: () => pending.eventText(),
    });
    assert.equal(await pending.status(), "pending");
    await refused(pending, /not running|not started|task .*not|Unknown task/i);
  });

  it("with an empty command", async () => {
    const cli = await fixture.agent.nomad(["alloc", "exec", allocation.id]);
    assert.notEqual(cli.exitCode, 0);
    assert.match(cli.stderr, /command/i);
    const startedMs = performance.now();
    const { reason, exitCode } = await ExecSession.open({ allocation, argv: [] }).then(
      (session) => session.end(),
      (error: Error) => ({ reason: error.message, exitCode: undefined }),
    );
    assert.equal(exitCode, undefined);
    assert.match(reason, /command|40\d/i);
    assert.ok(performance.now() - startedMs < maxMs);
  });

  it("into a guest whose agent hangs, until it goes on", async () => {
    const { vmmPid } = await machineOf(allocation);
    process.kill(vmmPid, "SIGSTOP");
    try {
      await refused(allocation, /guest does not answer: exec: no answer within 15 s/, firstAnswerMs);
    } finally {
      process.kill(vmmPid, "SIGCONT");
    }
    const { stdout, stderr } = await allocation.exec(["echo", "back"]);
    assert.equal(stdout, "back\n", stderr);
  });

  it("into a task that has ended", async () => {
    await allocation.stop();
    await refused(allocation, /not running|is stopped|terminal|complete/i);
  });
});
