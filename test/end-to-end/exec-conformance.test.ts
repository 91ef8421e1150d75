// Nomad's own conformance cases for streaming exec (plugins/drivers/testutils/exec_testing.go), byte for byte, through a real
// agent's exec endpoint: the same commands, the same input messages in the same order, the same output.
import assert from "node:assert/strict";
import { access } from "node:fs/promises";
import { before, describe, it } from "node:test";
import { type Allocation, runService } from "./support/allocation.ts";
import { skipVms } from "./support/environment.ts";
import { ExecSession, runExec } from "./support/exec-session.ts";
import { Fixture } from "./support/fixture.ts";

const fixture = Fixture.use();
let allocation: Allocation;

before(async () => {
  if (skipVms !== false) return;
  await fixture.ready();
  allocation = await runService({
    agent: fixture.agent,
    config: `
      image   = "busybox:latest"
      command = "/bin/sh"
      args    = ["-c", "trap 'exit 0' TERM; while :; do sleep 3600 & wait; done"]
    `,
  });
});

interface Case {
  readonly name: string;
  readonly command: string;
  readonly terminal?: boolean;
  readonly stdin?: string;
  readonly stdout?: string;
  readonly stderr?: RegExp;
  readonly exitCode: number;
}

const cases: readonly Case[] = [
  {
    name: "notty: basic",
    command: "echo hello stdout; echo hello stderr >&2; exit 43",
    stdout: "hello stdout\n",
    stderr: /^hello stderr\n$/,
    exitCode: 43,
  },
  {
    name: "notty: streaming",
    command: "for n in 1 2 3; do echo $n; sleep 1; done",
    stdout: "1\n2\n3\n",
    exitCode: 0,
  },
  {
    name: "notty: stty check",
    command: "stty size",
    stderr: /stty: .?standard input.?: Inappropriate ioctl for device\n/,
    exitCode: 1,
  },
  {
    name: "notty: stdin passing",
    command: "echo hello from command; head -n1",
    stdin: "hello from stdin\n",
    stdout: "hello from command\nhello from stdin\n",
    exitCode: 0,
  },
  {
    name: "tty: basic",
    command: "echo hello stdout; echo hello stderr >&2; exit 43",
    terminal: true,
    stdout: "hello stdout\r\nhello stderr\r\n",
    exitCode: 43,
  },
  {
    name: "tty: streaming",
    command: "for n in 1 2 3; do echo $n; sleep 1; done",
    terminal: true,
    stdout: "1\r\n2\r\n3\r\n",
    exitCode: 0,
  },
  { name: "tty: stty check", command: "sleep 1; stty size", terminal: true, stdout: "100 100\r\n", exitCode: 0 },
  {
    name: "tty: stdin passing",
    command: "head -n1",
    terminal: true,
    stdin: "hello from stdin\n",
    stdout: "hello from stdin\r\nhello from stdin\r\n",
    exitCode: 0,
  },
  {
    name: "tty: children processes",
    command: "(( sleep 3; echo from background ) & ); echo from main; exec sleep 1",
    terminal: true,
    stdout: "from main\r\n",
    exitCode: 0,
  },
];

/** The messages that Nomad's test sends, in its order. */
async function conform(command: string, options: { terminal?: boolean; stdin?: string } = {}) {
  await using session = await ExecSession.open({
    allocation,
    argv: ["/bin/sh", "-c", command],
    terminal: options.terminal ?? false,
  });
  if (options.terminal === true) {
    session.resize({ rows: 50, columns: 40 });
    session.resize({ rows: 100, columns: 100 });
  }
  await session.write(options.stdin ?? "");
  if (options.terminal !== true) session.closeStdin();
  return await session.end();
}

describe("ExecTaskStreaming conformance", { skip: skipVms }, () => {
  for (const { name, command, terminal, stdin, stdout, stderr, exitCode } of cases) {
    it(name, async () => {
      const result = await conform(command, {
        ...(terminal === undefined ? {} : { terminal }),
        ...(stdin === undefined ? {} : { stdin }),
      });
      assert.equal(result.stdout, stdout ?? "");
      assert.match(result.stderr, stderr ?? /^$/);
      assert.equal(result.exitCode, exitCode);
    });
  }

  it("isolation", async () => {
    const text = "hello from the other side";
    const written = await conform(`FILE=$(mktemp); echo "$FILE"; echo ${JSON.stringify(text)} >> "\${FILE}"`);
    assert.equal(written.exitCode, 0, written.stderr);
    const file = written.stdout.trim();
    assert.match(file, /^\/tmp\//);
    await assert.rejects(access(file), { code: "ENOENT" });
    const read = await conform(`cat ${JSON.stringify(file)}`);
    assert.equal(read.exitCode, 0);
    assert.equal(read.stdout.trim(), text);
    // Nomad requires this where the host has cgroup v2. The guest always has v2.
    const group = await conform("cat /proc/self/cgroup");
    assert.equal(group.exitCode, 0);
    assert.match(group.stdout.trim(), /\.scope$/);
  });
});

describe("beyond the conformance cases", { skip: skipVms }, () => {
  it("an empty standard input message and heartbeats have no effect", async () => {
    await using session = await ExecSession.open({ allocation, argv: ["cat"] });
    session.heartbeat();
    await session.write("");
    await session.write("one\n");
    session.heartbeat();
    await session.write("two\n");
    session.closeStdin();
    const { stdout, exitCode } = await session.end();
    assert.deepEqual({ stdout, exitCode }, { stdout: "one\ntwo\n", exitCode: 0 });
  });

  for (const [what, argv, exitCode, message] of [
    ["a program that is not there", ["no-such"], 127, /exec: "no-such": executable file not found in \$PATH/],
    ["a path that is not there", ["/no/such"], 127, /exec: "\/no\/such": no such file or directory/],
    ["a file that is not a program", ["/etc/passwd"], 126, /exec: "\/etc\/passwd": permission denied/],
    ["a directory", ["/etc"], 126, /exec: "\/etc": (permission denied|is a directory)/],
  ] as const) {
    it(`${what}: exit code ${exitCode} and docker's kind of message`, async () => {
      const plain = await runExec({ allocation, argv });
      assert.equal(plain.exitCode, exitCode, JSON.stringify(plain));
      assert.equal(plain.stdout, "");
      assert.match(plain.stderr, message);
      const terminal = await runExec({ allocation, argv, terminal: true });
      assert.equal(terminal.exitCode, exitCode);
      assert.match(terminal.stdout, message);
      assert.match(terminal.stdout, /\r\n$/);
    });
  }

  it("death by a signal gives 128 plus its number", async () => {
    for (const signal of [1, 2, 6, 9, 11, 15]) {
      assert.equal((await runExec({ allocation, argv: ["sh", "-c", `kill -${signal} $$`] })).exitCode, 128 + signal);
    }
  });

  it("an empty command is refused", async () => {
    const started = performance.now();
    const end = await ExecSession.open({ allocation, argv: [] }).then(
      (session) => session.end(),
      (error: Error) => ({ reason: error.message, exitCode: undefined }),
    );
    assert.equal(end.exitCode, undefined);
    assert.notEqual(end.reason, "");
    assert.ok(performance.now() - started < 5_000);
  });

  it("an argument list that is too long is an error that says so", async () => {
    const { reason, exitCode, stderr } = await runExec({ allocation, argv: ["echo", "x".repeat(140_000)] }).catch(
      (error: Error) => ({ reason: error.message, exitCode: undefined, stderr: "" }),
    );
    assert.notEqual(exitCode, 0);
    assert.match(reason + stderr, /argument list too long|431|too large/i);
  });
});
