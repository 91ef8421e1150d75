// A task's life: its end, its stop, nothing left behind, and no harm from a dead plugin or a restarted agent.
import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { before, describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { exists } from "../../src/system/files.ts";
import { type Allocation, runJob, runService } from "./support/allocation.ts";
import { skipVms } from "./support/environment.ts";
import { Fixture } from "./support/fixture.ts";
import type { SeenRecord } from "./support/jailed.ts";
import { leftovers, machineOf, waitUntilNoMachineIsLeft, waitUntilNothingIsLeft } from "./support/machines.ts";
import { isRunning, listProcesses, waitUntilGone } from "./support/processes.ts";
import { rightsOf } from "./support/rights.ts";
import { waitFor } from "./support/wait.ts";

const fixture = Fixture.use();

function shell(script: string): string {
  return `image = "busybox:latest"\ncommand = "/bin/sh"\nargs = ["-c", ${JSON.stringify(script)}]`;
}

describe("the end of a task", { skip: skipVms, concurrency: 3 }, () => {
  for (const exitCode of [0, 7, 255]) {
    it(`exit code ${exitCode}`, async () => {
      const allocation = await runJob({
        agent: fixture.agent,
        config: shell(`echo out; echo err >&2; exit ${exitCode}`),
      });
      assert.deepEqual(await allocation.exit(), { exitCode, signal: 0 });
      assert.equal(await allocation.status(), exitCode === 0 ? "complete" : "failed");
      await allocation.waitForLog(/^out\n$/);
      await allocation.waitForLog(/^err\n$/, { stream: "stderr" });
    });
  }

  it("a signal from inside", async () => {
    // The shell is PID 1 of its namespace and safe from its own signals; its child is not.
    const allocation = await runJob({ agent: fixture.agent, config: shell("sh -c 'kill -9 $$'; exit $?") });
    assert.equal((await allocation.exit()).exitCode, 137);
  });

  it("a task in a process namespace of its own, as PID 1, in a VM with a hostname", async () => {
    const allocation = await runJob({
      agent: fixture.agent,
      config: shell("echo pid=$$; hostname; cat /etc/hosts; ip -o addr show lo"),
    });
    await allocation.waitForLog(/^pid=1$/m);
    const [, hostname = ""] = (await allocation.log()).split("\n");
    assert.match(hostname, /^[a-z0-9-]+$/);
    await allocation.waitForLog(new RegExp(`^\\d+\\.\\d+\\.\\d+\\.\\d+\\s+.*${hostname}`, "m"));
    await allocation.waitForLog(/127\.0\.0\.1\/8/);
  });

  it("a megabyte of output arrives whole", async () => {
    const allocation = await runJob({ agent: fixture.agent, config: shell("seq 1 150000") });
    await allocation.waitForLog(/\n150000\n$/);
    const lines = (await allocation.log()).trimEnd().split("\n");
    assert.equal(lines.length, 150_000);
    assert.ok(lines.every((line, index) => line === `${index + 1}`));
  });
});

describe("after tasks that ended", { skip: skipVms }, () => {
  it("nothing is left on the host", () => waitUntilNoMachineIsLeft(fixture.agent));
});

describe("stopping", { skip: skipVms, concurrency: 3 }, () => {
  it("sends SIGTERM and waits for the task's own end", async () => {
    const config = shell(
      "trap 'echo stopping; sleep 1; echo stopped; exit 3' TERM; echo ready; while :; do sleep 1; done",
    );
    const allocation = await runService({ agent: fixture.agent, config, task: 'kill_timeout = "20s"' });
    await allocation.waitForLog(/ready/);
    await allocation.stop();
    assert.equal((await allocation.exit()).exitCode, 3);
    await allocation.waitForLog(/ready\nstopping\nstopped\n/);
  });

  it("sends the job's kill_signal", async () => {
    const config = shell("trap 'exit 4' USR1; echo ready; while :; do sleep 1; done");
    const allocation = await runService({
      agent: fixture.agent,
      config,
      task: 'kill_signal = "SIGUSR1"\nkill_timeout = "20s"',
    });
    await allocation.waitForLog(/ready/);
    await allocation.stop();
    assert.equal((await allocation.exit()).exitCode, 4);
  });

  it("kills after kill_timeout", async () => {
    const config = shell("trap '' TERM INT; echo ready; while :; do sleep 1; done");
    const allocation = await runService({ agent: fixture.agent, config, task: 'kill_timeout = "2s"' });
    await allocation.waitForLog(/ready/);
    const machine = await machineOf(allocation);
    const started = performance.now();
    await allocation.stop();
    const elapsedMs = performance.now() - started;
    assert.ok(elapsedMs >= 1_900, `killed after ${elapsedMs} ms, before its time`);
    const { exitCode, signal } = await allocation.exit();
    assert.ok(signal === 9 || exitCode === 137, `exit code ${exitCode}, signal ${signal}`);
    await waitUntilNothingIsLeft(machine.directory);
  });

  it("nomad alloc signal reaches the task", async () => {
    const config = shell("trap 'echo got-hup' HUP; echo ready; while :; do sleep 1; done");
    const allocation = await runService({ agent: fixture.agent, config });
    await allocation.waitForLog(/ready/);
    const { exitCode, stderr } = await fixture.agent.nomad(["alloc", "signal", "-s", "SIGHUP", allocation.id]);
    assert.equal(exitCode, 0, stderr);
    await allocation.waitForLog(/got-hup/);
    await allocation.stop();
  });
});

describe("stopped tasks", { skip: skipVms }, () => {
  it("leave nothing on the host", () => waitUntilNoMachineIsLeft(fixture.agent));
});

describe("a kill whose plugin dies before the end is on record", { skip: skipVms }, () => {
  it("is a kill for the next plugin too: exit code 137", async () => {
    const config = shell("trap '' TERM INT; echo ready; while :; do sleep 1; done");
    const allocation = await runService({ agent: fixture.agent, config, task: 'kill_timeout = "1s"' });
    await allocation.waitForLog(/ready/);
    const { directory, shimPid, vmmPid } = await machineOf(allocation);
    const plugin = await fixture.agent.plugin();
    // The guest must not report an end of its task, nor the supervisor the VM's, before the plugin is gone.
    for (const pid of [vmmPid, shimPid]) process.kill(pid, "SIGSTOP");
    const { exitCode, stderr } = await fixture.agent.nomad(["job", "stop", "-detach", "-yes", allocation.job]);
    assert.equal(exitCode, 0, stderr);
    await waitFor({
      what: "the kill to be on record",
      timeoutMs: 60_000,
      intervalMs: 20,
      attempt: async () =>
        /"phase": "killed"/.test(await readFile(join(directory, "machine.json"), "utf8")) || undefined,
    });
    process.kill(plugin.pid, "SIGKILL");
    await waitUntilGone({ pid: plugin.pid, timeoutMs: 5_000 });
    // SIGTERM asks a supervisor to kill; the plugin may have asked already.
    process.kill(shimPid, "SIGTERM");
    process.kill(shimPid, "SIGCONT");
    await allocation.waitForEnd(90_000);
    assert.deepEqual(await allocation.exit(), { exitCode: 137, signal: 9 });
    const { stdout } = await fixture.agent.nomad(["alloc", "status", allocation.id]);
    assert.match(stdout, /Exit Code: 137, Signal: 9/);
    await waitUntilNothingIsLeft(directory);
  });
});

describe("a VM whose VMM is killed", { skip: skipVms }, () => {
  it("ends the task as failed, says so, and leaves nothing", async () => {
    const allocation = await runService({
      agent: fixture.agent,
      config: shell("echo ready; while :; do sleep 1; done"),
    });
    await allocation.waitForLog(/ready/);
    const machine = await machineOf(allocation);
    process.kill(machine.vmmPid, "SIGKILL");
    assert.equal(await allocation.waitForEnd(30_000), "failed");
    await waitUntilNothingIsLeft(machine.directory);
  });
});

describe("a VM whose vsock device is killed", { skip: skipVms }, () => {
  it("ends the task as failed, names the device, and leaves nothing", async (context) => {
    const allocation = await runService({
      agent: fixture.agent,
      config: shell("echo ready; while :; do sleep 1; done"),
    });
    await allocation.waitForLog(/ready/);
    const machine = await machineOf(allocation);
    const helper = (await listProcesses()).find(
      ({ parentPid, pid }) => parentPid === machine.shimPid && pid !== machine.vmmPid,
    );
    if (helper === undefined) return context.skip("Firecracker has its vsock device in itself");
    process.kill(helper.pid, "SIGKILL");
    assert.equal(await allocation.waitForEnd(30_000), "failed");
    assert.match(await allocation.eventText(), /vsock.*signal 9.*\(helper_ended\)|\(helper_ended\).*vsock.*signal 9/);
    await waitUntilNothingIsLeft(machine.directory);
  });
});

describe("a task outlives its plugin and its agent", { skip: skipVms }, () => {
  let allocation: Allocation;
  let first: Awaited<ReturnType<typeof machineOf>>;
  let groups: readonly string[];

  before(async () => {
    const script =
      "trap 'exit 6' TERM; i=0; while [ ! -e /tmp/stop ]; do i=$((i+1)); echo line $i; sleep 0.2; done; echo last; exit 5";
    allocation = await runService({ agent: fixture.agent, config: shell(script), task: 'kill_timeout = "20s"' });
    await allocation.waitForLog(/line 3\n/);
    first = await machineOf(allocation);
    const record = JSON.parse(await readFile(join(first.directory, "machine.json"), "utf8")) as SeenRecord;
    groups = [...record.cgroups, ...record.supervisorCgroups];
  });

  /** The VM is still the first one, its log goes on without a gap, exec works, and Nomad shows it as running. */
  async function assertSameAndAlive(): Promise<void> {
    assert.deepEqual(await machineOf(allocation), first);
    assert.ok(await isRunning(first.vmmPid), "the VMM runs");
    assert.ok(await isRunning(first.shimPid), "the supervisor runs");
    const before = countLines(await allocation.log());
    await allocation.waitForLog(new RegExp(`line ${before + 5}\n`));
    countLines(await allocation.log());
    await allocation.waitForExec();
    const result = await allocation.exec(["echo", "hello"]);
    assert.equal(result.stdout, "hello\n");
    assert.equal(await allocation.status(), "running");
  }

  /** Fails on a gap or a repetition. */
  function countLines(log: string): number {
    const numbers = log.match(/(?<=^line )\d+(?=\n)/gm) ?? [];
    numbers.forEach((number, index) => {
      assert.equal(number, `${index + 1}`, "the log has no gap and no repetition");
    });
    return numbers.length;
  }

  it("its supervisor has given up its rights on the host", async () => {
    const { mounts, cgroup, ...rights } = await rightsOf(first.shimPid);
    assert.deepEqual(rights, {
      uid: 0,
      // DAC_OVERRIDE and KILL.
      effective: "0000000000000022",
      bounding: "0000000000000000",
      noNewPrivileges: true,
      seccomp: 2,
      namespaces: ["mnt", "net", "ipc", "uts", "cgroup"],
      memoryLimitMib: 64,
    });
    // Nothing of the host but the VM's directory, read-only.
    assert.deepEqual(
      mounts.map((mount) => mount.replace(/(?<=^\/ ro,nosuid,nodev,noexec),.*/, "")),
      ["/ ro,nosuid,nodev,noexec"],
    );
    assert.deepEqual(await readdir(`/proc/${first.shimPid}/root`), await readdir(first.directory));
    // Not the agent's, and not the VM's either.
    assert.match(cgroup, /\/litegix-fc-driver\/[0-9a-f]{8}-supervisor$/);
    const { cgroup: ofVm } = await rightsOf(first.vmmPid);
    assert.equal(`${ofVm}-supervisor`, cgroup);
  });

  it("kill -9 of the plugin", async () => {
    const plugin = await fixture.agent.plugin();
    process.kill(plugin.pid, "SIGKILL");
    await waitUntilGone({ pid: plugin.pid, timeoutMs: 5_000 });
    await waitFor({
      what: "Nomad to start the plugin again",
      timeoutMs: 60_000,
      attempt: async () => ((await fixture.agent.plugin()).pid !== plugin.pid ? true : undefined),
    });
    await assertSameAndAlive();
  });

  it("an orderly restart of the agent", async () => {
    await fixture.agent.interrupt();
    assert.ok(await isRunning(first.vmmPid), "the VM runs without agent and plugin");
    await fixture.agent.launch();
    await assertSameAndAlive();
  });

  it("kill -9 of the agent: fixture.agent, and its restart", async () => {
    await fixture.agent.kill();
    await delay(1_000);
    await fixture.agent.launch();
    await assertSameAndAlive();
  });

  it("kill -9 of both at once", async () => {
    const plugin = await fixture.agent.plugin();
    await fixture.agent.kill();
    process.kill(plugin.pid, "SIGKILL");
    await waitUntilGone({ pid: plugin.pid, timeoutMs: 5_000 });
    await fixture.agent.launch();
    await assertSameAndAlive();
  });

  it("then it ends by itself, and its exit code is known", async () => {
    const { exitCode, stderr } = await allocation.exec(["touch", "/tmp/stop"]);
    assert.equal(exitCode, 0, stderr);
    assert.deepEqual(await waitForExit(allocation), { exitCode: 5, signal: 0 });
    await allocation.waitForLog(/\nlast\n$/);
    countLines(await allocation.log());
    await waitUntilNothingIsLeft(first.directory);
    for (const group of groups) assert.equal(await exists(group), false, group);
  });

  it("a task that ended while no agent ran: its exit code is known after the restart", async () => {
    const other = await runService({ agent: fixture.agent, config: shell("echo ready; sleep 8; echo late; exit 9") });
    await other.waitForLog(/ready/);
    const machine = await machineOf(other);
    await fixture.agent.interrupt();
    await waitUntilGone({ pid: machine.vmmPid, timeoutMs: 60_000 });
    assert.ok((await leftovers(machine.directory)).length > 0, "the exit record waits for the agent");
    await fixture.agent.launch();
    assert.deepEqual(await waitForExit(other), { exitCode: 9, signal: 0 });
    await other.waitForLog(/late\n$/);
    await waitUntilNothingIsLeft(machine.directory);
  });

  async function waitForExit(ended: Allocation): Promise<{ exitCode: number; signal: number }> {
    // A service's end is a failure to Nomad, whatever its exit code; restarts are off.
    await ended.waitForEnd(60_000);
    return await ended.exit();
  }
});
