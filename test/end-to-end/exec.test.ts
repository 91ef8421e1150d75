// `nomad alloc exec`, as users type it and as Nomad's own conformance cases run it.
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { hostname } from "node:os";
import { before, describe, it } from "node:test";
import { type Allocation, runService } from "./support/allocation.ts";
import { skipVms } from "./support/environment.ts";
import { Fixture } from "./support/fixture.ts";
import { waitFor } from "./support/wait.ts";

const fixture = Fixture.use();
let allocation: Allocation;

before(async () => {
  if (skipVms !== false) return;
  await fixture.ready();
  allocation = await runService({
    agent: fixture.agent,
    config: `
      image    = "busybox:latest"
      mem_size = 256
      command  = "/bin/sh"
      args     = ["-c", "trap 'exit 0' TERM; while :; do sleep 3600 & wait; done"]
      work_dir = "/var/www"
    `,
    task: 'env { GREETING = "hello" }',
    memoryMib: 256,
  });
});

async function succeed(argv: readonly string[], stdin?: string): Promise<string> {
  const result = await allocation.exec(argv, stdin === undefined ? {} : { stdin });
  assert.equal(result.exitCode, 0, result.stderr);
  assert.equal(result.stderr, "");
  return result.stdout;
}

describe("commands", { skip: skipVms }, () => {
  it("hostname", async () => {
    const name = (await succeed(["hostname"])).trim();
    assert.match(name, /^[a-z0-9-]+$/);
    assert.notEqual(name, hostname());
  });

  it("ps aux shows the task as PID 1 of its own namespace", async () => {
    const output = await succeed(["ps", "aux"]);
    assert.match(output, /^ *PID +USER/);
    assert.match(output, /^ *1 +root .*\/bin\/sh -c trap/m);
    assert.doesNotMatch(output, /litegix-init|kthreadd/);
  });

  it("ls -la /", async () => {
    const output = await succeed(["ls", "-la", "/"]);
    for (const name of ["bin", "dev", "etc", "proc", "tmp", "sys"]) assert.match(output, new RegExp(` ${name}$`, "m"));
  });

  it("cat /proc/meminfo", async () => {
    const memoryMib = Number(/^MemTotal: +(\d+) kB$/m.exec(await succeed(["cat", "/proc/meminfo"]))?.[1]) / 1024;
    assert.ok(memoryMib > 150 && memoryMib <= 256, `${memoryMib} MiB`);
  });

  it("env: the task's", async () => {
    const output = await succeed(["env"]);
    for (const line of ["GREETING=hello", `NOMAD_ALLOC_ID=${allocation.id}`, "NOMAD_TASK_NAME=main"]) {
      assert.match(output, new RegExp(`^${line}$`, "m"));
    }
    assert.match(output, /^PATH=.*\/bin/m);
  });

  it("in the task's directory", async () => {
    assert.equal(await succeed(["pwd"]), "/var/www\n");
  });

  it("cat /etc/resolv.conf and /etc/hosts", async () => {
    assert.match(await succeed(["cat", "/etc/hosts"]), /127\.0\.0\.1\s+localhost/);
    await succeed(["cat", "/etc/resolv.conf"]);
  });

  for (const exitCode of [1, 42, 255]) {
    it(`exit code ${exitCode}`, async () => {
      assert.equal((await allocation.exec(["sh", "-c", `exit ${exitCode}`])).exitCode, exitCode);
    });
  }

  it("death by a signal gives 128 plus its number", async () => {
    assert.equal((await allocation.exec(["sh", "-c", "kill -9 $$"])).exitCode, 137);
  });

  it("a program that is not there", async () => {
    const result = await allocation.exec(["no-such-program"]);
    assert.notEqual(result.exitCode, 0);
    assert.match(result.stderr + result.stdout, /no-such-program/);
  });

  it("many at once", async () => {
    const outputs = await Promise.all(Array.from({ length: 8 }, (_, index) => succeed(["echo", `${index}`])));
    assert.deepEqual(
      outputs,
      Array.from({ length: 8 }, (_, index) => `${index}\n`),
    );
  });
});

describe("streams", { skip: skipVms }, () => {
  it("standard output and error arrive apart", async () => {
    const script = "echo hello stdout; echo hello stderr >&2; exit 43";
    const { stdout, stderr, exitCode } = await allocation.exec(["/bin/sh", "-c", script]);
    assert.equal(stdout, "hello stdout\n");
    assert.match(stderr, /^hello stderr\n/);
    assert.equal(exitCode, 43);
  });

  it("no terminal unless asked for", async () => {
    const { stdout, stderr, exitCode } = await allocation.exec(["/bin/sh", "-c", "stty size"]);
    assert.equal(stdout, "");
    assert.match(stderr, /stty: .?standard input.?: Inappropriate ioctl for device/);
    assert.equal(exitCode, 1);
  });

  it("-i: standard input, closed at its end", async () => {
    assert.equal(await succeed(["wc", "-l"], "one\ntwo\nthree\n"), "3\n");
    assert.equal(await succeed(["cat"], ""), "");
    assert.equal(await succeed(["/bin/sh", "-c", "echo first; head -n1"], "from stdin\n"), "first\nfrom stdin\n");
  });

  it("megabytes both ways, unchanged", async () => {
    const text = randomBytes(1_500_000).toString("base64");
    const output = await succeed(["cat"], text);
    const hash = (data: string): string => createHash("sha256").update(data).digest("hex");
    assert.equal(output.length, text.length);
    assert.equal(hash(output), hash(text));
  });

  it("a command that does not read its input ends all the same", async () => {
    assert.equal(await succeed(["echo", "done"], "x".repeat(300_000)), "done\n");
  });
});

describe("-i -t: a real terminal", { skip: skipVms }, () => {
  it("has the user's size, follows a resize, echoes, passes ^C and the exit code on", async () => {
    await using terminal = allocation.openTerminal(["/bin/sh"]);
    await terminal.typeUntil("echo size=$(stty size)", /size=24 80\r\n/);
    await terminal.resize({ rows: 50, columns: 100 });
    await terminal.typeUntil("echo size=$(stty size)", /size=50 100\r\n/);
    await terminal.typeUntil("tty", /\/dev\/(pts\/\d+|tty\w*)\r\n/);
    terminal.type("sleep 1000\r");
    await terminal.waitForOutput(/sleep 1000\r\n/);
    terminal.type("\u0003");
    await terminal.typeUntil("echo after=$((40 + 2))", /after=42\r\n/);
    terminal.type("exit 17\r");
    assert.equal(await terminal.waitForEnd(), 17);
  });

  it("joins standard output and error", async () => {
    await using terminal = allocation.openTerminal([
      "/bin/sh",
      "-c",
      "echo hello stdout; echo hello stderr >&2; exit 43",
    ]);
    assert.equal(await terminal.waitForEnd(), 43);
    assert.equal(terminal.output, "hello stdout\r\nhello stderr\r\n");
  });

  it("ends with its main process, not with its background ones", async () => {
    const script = "(sleep 3; echo from background) & echo from main; exec sleep 1";
    await using terminal = allocation.openTerminal(["/bin/sh", "-c", script]);
    assert.equal(await terminal.waitForEnd(), 0);
    assert.equal(terminal.output, "from main\r\n");
  });
});

describe("an exec whose user leaves", { skip: skipVms }, () => {
  it("does not go on in the VM for ever", async () => {
    const terminal = allocation.openTerminal(["sleep", "4321"]);
    await terminal.waitForOutput(/^/, 5_000);
    let seen = false;
    for (let attempt = 0; attempt < 20 && !seen; attempt++)
      seen = (await succeed(["ps", "aux"])).includes("sleep 4321");
    assert.ok(seen, "the command runs");
    await terminal[Symbol.asyncDispose]();
    // The agent notices that a client went away only when it has output to send: some seconds later.
    await waitFor({
      what: "the command to be ended",
      timeoutMs: 30_000,
      attempt: async () => !(await succeed(["ps", "aux"])).includes("sleep 4321") || undefined,
    });
  });
});
