// Sessions side by side and their ends, through a real agent's exec endpoint: many at once, a reader that stops, a
// client that vanishes, the task's end, and a terminal as people use one.
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { before, describe, it } from "node:test";
import { type Allocation, runService } from "./support/allocation.ts";
import { skipVms } from "./support/environment.ts";
import { ExecSession, runExec } from "./support/exec-session.ts";
import { Fixture } from "./support/fixture.ts";
import { machineOf } from "./support/machines.ts";
import { waitUntilGone } from "./support/processes.ts";
import { waitFor } from "./support/wait.ts";

const fixture = Fixture.use();
let allocation: Allocation;

const service = `
  image   = "busybox:latest"
  command = "/bin/sh"
  args    = ["-c", "trap 'exit 7' TERM; while :; do sleep 3600 & wait; done"]
`;

before(async () => {
  if (skipVms !== false) return;
  await fixture.ready();
  allocation = await runService({ agent: fixture.agent, config: service });
});

async function output(...argv: string[]): Promise<string> {
  const { stdout, stderr, exitCode } = await runExec({ allocation, argv });
  assert.equal(exitCode, 0, stderr);
  return stdout;
}

const sha256 = (data: Buffer): string => createHash("sha256").update(data).digest("hex");

describe("sessions side by side", { skip: skipVms }, () => {
  it("50 at once, each with its own input, output and exit code", async () => {
    const ends = await Promise.all(
      Array.from({ length: 50 }, (_, index) =>
        runExec({ allocation, argv: ["sh", "-c", `cat; exit ${index}`], stdin: `session ${index}\n` }),
      ),
    );
    for (const [index, { stdout, exitCode, reason }] of ends.entries()) {
      assert.deepEqual({ stdout, exitCode }, { stdout: `session ${index}\n`, exitCode: index }, reason);
    }
  });

  it("a reader that stops holds up only its own session, and gets every byte once it reads on", async () => {
    await using stopped = await ExecSession.open({ allocation, argv: ["dd", "if=/dev/zero", "bs=65536", "count=512"] });
    stopped.onOutput = () => {};
    stopped.pause();
    assert.equal(await output("echo", "meanwhile"), "meanwhile\n");
    assert.equal((await output("head", "-c", "3000000", "/dev/zero")).length, 3_000_000);
    stopped.resume();
    const { exitCode } = await stopped.end(60_000);
    assert.equal(exitCode, 0);
    assert.ok(stopped.bytesSeen >= 512 * 65_536, `${stopped.bytesSeen}`);
  });

  it("megabytes of binary data both ways, unchanged", async () => {
    const data = randomBytes(8_000_000);
    await using session = await ExecSession.open({ allocation, argv: ["cat"] });
    const back: Buffer[] = [];
    session.onOutput = (_stream, chunk) => back.push(chunk);
    for (let at = 0; at < data.length; at += 50_000) await session.write(data.subarray(at, at + 50_000));
    session.closeStdin();
    assert.equal((await session.end(60_000)).exitCode, 0);
    assert.equal(sha256(Buffer.concat(back)), sha256(data));
  });
});

describe("a client that vanishes", { skip: skipVms }, () => {
  /** The command lines of the task's processes that carry the mark. */
  const running = async (mark: string): Promise<string[]> =>
    (await output("ps", "-o", "args")).split("\n").filter((line) => line.includes(mark) && !line.includes("ps -o"));

  for (const terminal of [false, true]) {
    it(`takes its whole tree along, ${terminal ? "in a terminal" : "without a terminal"}`, async () => {
      const mark = terminal ? "4321" : "4322";
      const script = `setsid sh -c 'sleep ${mark}; :' & sleep ${mark} & echo up; sleep ${mark}; :`;
      const session = await ExecSession.open({ allocation, argv: ["sh", "-c", script], terminal });
      await session.waitForStdout(/up/);
      await waitFor({
        what: "the tree to run",
        timeoutMs: 10_000,
        attempt: async () => (await running(`sleep ${mark}`)).length >= 4 || undefined,
      });
      session.vanish();
      let left: string[] = [];
      await waitFor({
        what: "the tree to end",
        timeoutMs: 20_000,
        attempt: async () => {
          left = await running(`sleep ${mark}`);
          return left.length === 0 || undefined;
        },
        seen: () => left.join("\n"),
      });
    });
  }

  it("a process that ignores the hang-up is killed", async () => {
    const session = await ExecSession.open({ allocation, argv: ["sh", "-c", "trap '' HUP; echo up; sleep 4323; :"] });
    await session.waitForStdout(/up/);
    session.vanish();
    await waitFor({
      what: "it to end",
      timeoutMs: 25_000,
      attempt: async () => (await running("sleep 4323")).length === 0 || undefined,
    });
  });
});

describe("a terminal", { skip: skipVms }, () => {
  it("Ctrl-C, Ctrl-Z, jobs, Ctrl-D, TERM and a resize that programs hear of", async () => {
    await using session = await ExecSession.open({ allocation, argv: ["/bin/sh"], terminal: true });
    session.resize({ rows: 30, columns: 90 });
    let seen = 0;
    const hear = async (answer: RegExp): Promise<void> => {
      await waitFor({
        what: `${answer}`,
        timeoutMs: 15_000,
        intervalMs: 20,
        attempt: () => answer.test(session.stdout.slice(seen)) || undefined,
        seen: () => JSON.stringify(session.stdout.slice(seen)),
      });
      seen = session.stdout.length;
    };
    const say = async (keys: string, answer: RegExp): Promise<void> => {
      await session.write(keys);
      await hear(answer);
    };
    const runs = async (command: string): Promise<void> => {
      await session.write(`${command}\r`);
      await waitFor({
        what: `${command} to run`,
        timeoutMs: 15_000,
        attempt: async () => (await output("ps", "-o", "args")).split("\n").includes(command) || undefined,
      });
      seen = session.stdout.length;
    };
    await hear(/# /);
    await say("echo term=$TERM\r", /term=xterm\r\n/);
    const watcher = "trap 'echo resized=$(stty size)' WINCH; echo watching; while :; do sleep 0.1; done";
    await say(`sh -c "${watcher.replaceAll("$", "\\$")}"\r`, /\nwatching\r\n/);
    session.resize({ rows: 40, columns: 100 });
    await hear(/resized=40 100\r\n/);
    await say("\u0003", /\^C[\s\S]*# /);
    await runs("sleep 1000");
    await say("\u0003", /\^C[\s\S]*# /);
    await say("echo interrupted=$?\r", /interrupted=130\r\n/);
    await runs("sleep 1001");
    await say("\u001a", /Stopped[\s\S]*# /);
    await say("jobs\r", /Stopped +sleep 1001/);
    await say("kill %1; wait; echo jobs=$((1 + 1))\r", /jobs=2\r\n/);
    await runs("cat");
    await say("typed\r", /typed\r\ntyped\r\n/);
    await session.write("\u0004");
    await hear(/# /);
    await waitFor({
      what: "the shell to end",
      timeoutMs: 20_000,
      intervalMs: 1_000,
      // The shell asks the terminal for the cursor's position at each prompt, and takes early input for the answer.
      attempt: async () => {
        if (!session.isOver) await session.write("exit 5\r");
        return session.isOver || undefined;
      },
      seen: () => JSON.stringify(session.stdout.slice(seen)),
    });
    assert.equal((await session.end()).exitCode, 5);
  });

  it("a full-screen program draws in the terminal's size and ends by its key", async () => {
    await using session = await ExecSession.open({ allocation, argv: ["vi", "/etc/passwd"], terminal: true });
    session.resize({ rows: 12, columns: 60 });
    // vi shows the file's name and size in its last line.
    await session.waitForStdout(/\/etc\/passwd.* 1\/\d+/);
    await session.write(":q!\r");
    assert.equal((await session.end()).exitCode, 0);
  });
});

describe("the task's end", { skip: skipVms }, () => {
  it("a session opened before is drained before its exit code; a later one is refused", async () => {
    const ending = await runService({ agent: fixture.agent, config: service, task: 'kill_timeout = "5s"' });
    await using session = await ExecSession.open({
      allocation: ending,
      argv: ["sh", "-c", "echo begin; dd if=/dev/zero bs=1000 count=300 2>/dev/null | tr '\\0' x; echo end; sleep 600"],
    });
    await session.waitForStdout(/end/);
    await ending.stop();
    const { stdout, exitCode } = await session.end();
    assert.equal(stdout.length, "begin\n".length + 300_000 + "end\n".length);
    assert.ok(exitCode === 137 || exitCode === 129, `${exitCode}`);
    const started = performance.now();
    const late = await runExec({ allocation: ending, argv: ["true"] }).catch((error: Error) => error.message);
    assert.match(JSON.stringify(late), /not running|terminal|complete|404|unknown/i);
    assert.ok(performance.now() - started < 5_000);
  });

  it("a client that pauses while task and VM end gets all output and the exit code", async () => {
    const ending = await runService({ agent: fixture.agent, config: service, task: 'kill_timeout = "5s"' });
    const { vmmPid } = await machineOf(ending);
    const block = 100_000;
    const loop = `i=0; while :; do dd if=/dev/zero bs=${block} count=1 2>/dev/null; i=$((i+1)); echo $i >/tmp/written; done`;
    await using session = await ExecSession.open({ allocation: ending, argv: ["sh", "-c", loop] });
    session.onOutput = () => {};
    session.pause();
    const written = async (): Promise<number> => Number((await ending.exec(["cat", "/tmp/written"])).stdout);
    let last = 0;
    await waitFor({
      what: "every buffer on the way to be full",
      timeoutMs: 60_000,
      intervalMs: 1_000,
      attempt: async () => {
        const before = last;
        last = await written();
        return (last > 0 && last === before) || undefined;
      },
      seen: () => `${last} blocks`,
    });
    await ending.stop();
    await waitUntilGone({ pid: vmmPid, timeoutMs: 30_000 });
    session.resume();
    const { exitCode, reason } = await session.end();
    assert.ok(session.bytesSeen >= last * block, `${session.bytesSeen} bytes of ${last} blocks`);
    assert.ok(session.bytesSeen <= (last + 1) * block, `${session.bytesSeen} bytes of ${last} blocks`);
    assert.ok(exitCode === 137 || exitCode === 129, `${exitCode} ${reason}`);
  });
});
