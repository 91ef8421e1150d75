// No byte of a task's output is lost or doubled, whatever is killed or stopped on the host while it writes, and none lands in a
// file that is not its FIFO.
import assert from "node:assert/strict";
import { readFile, rename, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { runJob, runService, startJob } from "./support/allocation.ts";
import { skipVms } from "./support/environment.ts";
import { Fixture } from "./support/fixture.ts";
import { logmonPids, written } from "./support/logmon.ts";
import { machineOf } from "./support/machines.ts";
import { waitFor } from "./support/wait.ts";

const fixture = Fixture.use(undefined, { rawExec: true });

describe("a task's output", { skip: skipVms }, () => {
  it("is whole across a stopped logmon, kill -9 of plugin, agent and both", async () => {
    const { agent } = fixture;
    const allocation = await startJob({
      agent,
      config: `
        image   = "busybox:latest"
        command = "/bin/sh"
        args    = ["-c", "i=0; while [ ! -e /tmp/stop ]; do i=$((i + 1)); echo line $i; [ $((i % 100)) = 0 ] && echo error $i >&2; done; printf 'the end'"]
      `,
    });
    await allocation.waitForStatus(["running"]);
    const grows = async (what: string): Promise<void> => {
      const before = (await written(allocation, "stdout")).length;
      await waitFor({
        what: `the log to grow ${what}`,
        timeoutMs: 60_000,
        attempt: async () => (await written(allocation, "stdout")).length > before + 1_000 || undefined,
      });
    };
    await grows("at first");

    const pids = await logmonPids(allocation);
    assert.ok(pids.length > 0, "logmon was found");
    for (const pid of pids) process.kill(pid, "SIGSTOP");
    // Long enough for FIFO, supervisor, connection and the guest's buffer to fill.
    await delay(4_000);
    for (const pid of pids) process.kill(pid, "SIGCONT");
    await grows("after a stopped logmon");

    process.kill((await agent.plugin()).pid, "SIGKILL");
    await grows("after kill -9 of the plugin");

    await agent.kill();
    await agent.launch();
    await grows("after kill -9 of the agent");

    const plugin = await agent.plugin();
    await agent.kill();
    process.kill(plugin.pid, "SIGKILL");
    await agent.launch();
    await allocation.waitForStatus(["running"]);
    await grows("after kill -9 of both");

    const supervisor = (await machineOf(allocation)).shimPid;
    const peak = Number(/^VmHWM:\s+(\d+) kB/m.exec(await readFile(`/proc/${supervisor}/status`, "utf8"))?.[1]);
    assert.ok(peak < 24 * 1024, `the supervisor's memory: ${peak} kB`);
    const seen: string[] = [];
    await waitFor({
      what: "the task to see its stop file",
      timeoutMs: 30_000,
      attempt: async () => {
        const { exitCode, stderr } = await allocation.exec(["touch", "/tmp/stop"]);
        seen.push(`exit code ${exitCode}: ${stderr}`);
        // The task may see the file and end, which kills all of its PID namespace, before `touch` is over.
        return exitCode === 0 || exitCode === 128 + 9 || undefined;
      },
      seen: async () => `${seen.slice(0, 5).join("")}\n${await allocation.eventText()}`,
    });
    await allocation.waitForEnd();
    await waitFor({
      what: "the last bytes",
      timeoutMs: 20_000,
      attempt: async () => (await written(allocation, "stdout")).endsWith("the end") || undefined,
    });
    const lines = (await written(allocation, "stdout")).split("\n");
    assert.equal(lines.pop(), "the end");
    const wrong = lines.findIndex((line, index) => line !== `line ${index + 1}`);
    assert.equal(
      wrong,
      -1,
      `line ${wrong + 1} of ${lines.length}: ${JSON.stringify(lines.slice(wrong - 1, wrong + 2))}`,
    );
    const errors = (await written(allocation, "stderr")).trimEnd().split("\n");
    assert.equal(errors.length, Math.floor(lines.length / 100));
    assert.equal(
      errors.findIndex((line, index) => line !== `error ${(index + 1) * 100}`),
      -1,
    );
  });

  it("64 KiB lines and a last line without an end arrive whole, the two streams apart", async () => {
    const allocation = await runJob({
      agent: fixture.agent,
      config: `
        image   = "busybox:latest"
        command = "/bin/sh"
        args    = ["-c", "for i in 1 2 3; do head -c 65535 /dev/zero | tr '\\\\0' $i; echo; done; printf partial >&2; printf unfinished"]
      `,
    });
    await allocation.waitForLog(/unfinished$/);
    const lines = (await allocation.log()).split("\n");
    assert.deepEqual(
      lines.slice(0, 3).map((line, index) => line === `${index + 1}`.repeat(65_535)),
      [true, true, true],
    );
    assert.deepEqual(lines.slice(3), ["unfinished"]);
    assert.equal(await allocation.log("stderr"), "partial");
  });
});

describe("a log FIFO that another task of the group replaces", { skip: skipVms }, () => {
  const untouched = "of the host\n";
  const echo = `
    image   = "busybox:latest"
    command = "/bin/sh"
    args    = ["-c", "echo a line of the task; sleep 3600"]
  `;

  async function hostFile(name: string): Promise<string> {
    const path = join(fixture.agent.directory, name);
    await writeFile(path, untouched);
    return path;
  }

  it("by a link fails the start, and the link's target gets no byte", async () => {
    const target = await hostFile("linked-to");
    const script = `f=$NOMAD_ALLOC_DIR/logs/.main.stdout.fifo; while ! [ -p $f ]; do :; done; mv $f $f.old; ln -s ${target} $f; sleep 3600`;
    const swapper = `
      task "swap" {
        driver = "raw_exec"
        lifecycle {
          hook    = "prestart"
          sidecar = true
        }
        config {
          command = "/bin/sh"
          args    = ["-c", ${JSON.stringify(script)}]
        }
      }
    `;
    const allocation = await startJob({ agent: fixture.agent, type: "service", config: echo, group: swapper });
    const status = await allocation.waitForStatus(["running", "failed"]);
    // Time for the line of a task that runs.
    if (status === "running") await delay(10_000);
    assert.equal(await readFile(target, "utf8"), untouched);
    assert.equal(await allocation.waitForStatus(["failed"]), "failed");
    assert.match(await allocation.eventText(), /\.main\.stdout\.fifo: .*symbolic link.*\(log_fifo\)/);
  });

  it("after the start gets no byte, neither at a restart of the agent nor of the task, which fails", async () => {
    const allocation = await runService({ agent: fixture.agent, config: echo, restarts: 1 });
    await allocation.waitForLog(/a line of the task/);
    const target = await hostFile("linked-to-later");
    const fifo = join(fixture.agent.directory, "data/alloc", allocation.id, "alloc/logs/.main.stdout.fifo");
    await rename(fifo, `${fifo}.old`);
    await symlink(target, fifo);
    await fixture.agent.interrupt();
    await fixture.agent.launch();
    await allocation.waitForExec();
    // Nomad sends its events to the server in batches.
    await waitFor({
      what: "the event of the log's end",
      timeoutMs: 30_000,
      attempt: async () =>
        /the task's log ends here: .*\.main\.stdout\.fifo .*\(log_fifo\)/.test(await allocation.eventText()) ||
        undefined,
      seen: async () => `${await allocation.eventText()}\n${(await fixture.agent.log()).slice(-3000)}`,
    });
    assert.equal(await readFile(target, "utf8"), untouched);
    await fixture.agent.nomad(["alloc", "restart", allocation.id]);
    assert.equal(await allocation.waitForStatus(["failed"], 120_000), "failed");
    assert.match(await allocation.eventText(), /\.main\.stdout\.fifo: .*symbolic link.*\(log_fifo\)/);
    assert.equal(await readFile(target, "utf8"), untouched);
  });
});
