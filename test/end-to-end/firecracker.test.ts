// The real Firecracker, jailed, under a real Nomad: the documented jobs, the ends that a cluster sees, a group's tasks, memory.
// After each of it nothing is left on the host. test/rig gives a machine without KVM what this needs.
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { type Allocation, runJob, runService } from "./support/allocation.ts";
import { skipFirecracker } from "./support/environment.ts";
import { Fixture } from "./support/fixture.ts";
import { assertNothingLeft, records, runFile, shell, slowMs, stopJob } from "./support/jailed.ts";
import { machineOf, waitUntilNothingIsLeft } from "./support/machines.ts";
import { isRunning, waitUntilGone } from "./support/processes.ts";
import { waitFor } from "./support/wait.ts";

const examples = join(import.meta.dirname, "../../example");

const fixture = Fixture.use();

describe("the documented jobs", { skip: skipFirecracker }, () => {
  it("simple-test prints its line and ends", async () => {
    const [id = ""] = await runFile({
      agent: fixture.agent,
      path: join(examples, "simple-test.nomad"),
      job: "simple-firecracker",
      status: "complete",
    });
    const logs = await fixture.agent.nomad(["alloc", "logs", id]);
    assert.match(logs.stdout, /hello from a microVM/);
  });

  it("detailed-test tells of its VM", async () => {
    const [id = ""] = await runFile({
      agent: fixture.agent,
      path: join(examples, "detailed-test.nomad"),
      job: "detailed-test",
      status: "complete",
    });
    const logs = await fixture.agent.nomad(["alloc", "logs", id]);
    assert.match(logs.stdout, /== cpu\n2\n/);
    assert.match(logs.stdout, /== done/);
  });

  it("exec-test runs commands", async () => {
    const [id = ""] = await runFile({
      agent: fixture.agent,
      path: join(examples, "exec-test.nomad"),
      job: "exec-test",
      status: "running",
    });
    const { agent } = fixture;
    const env = await agent.nomad(["alloc", "exec", id, "env"]);
    assert.match(env.stdout, /^GREETING=hello$/m);
    const ended = await agent.nomad(["alloc", "exec", id, "/bin/sh", "-c", "echo out; echo err >&2; exit 43"]);
    assert.deepEqual([ended.exitCode, ended.stdout, ended.stderr.includes("err")], [43, "out\n", true]);
    const counted = await agent.nomad(["alloc", "exec", "-i", id, "wc", "-c"], { stdin: "x".repeat(10_000) });
    assert.equal(counted.stdout.trim(), "10000");
    await stopJob(fixture.agent, "exec-test");
  });

  it("leave nothing", () => assertNothingLeft(fixture.agent));
});

describe("the ends that a cluster sees", { skip: skipFirecracker }, () => {
  it("kill -9 of the VMM fails the task, with code and console, and leaves nothing", async () => {
    const allocation = await runService({ agent: fixture.agent, config: shell("echo ready; sleep 3600") });
    const machine = await machineOf(allocation);
    process.kill(machine.vmmPid, "SIGKILL");
    assert.equal(await allocation.waitForEnd(60_000), "failed");
    assert.match(await allocation.eventText(), /killed by signal 9 \(vmm_killed\)/);
    await waitUntilNothingIsLeft(machine.directory);
    await assertNothingLeft(fixture.agent);
  });

  it("kill -9 of the plugin changes nothing for the VM, and it is still ended whole", async () => {
    const { agent } = fixture;
    const allocation = await runService({ agent, config: shell("echo ready; sleep 3600") });
    const machine = await machineOf(allocation);
    const [record] = await records(fixture.agent);
    const plugin = await agent.plugin();
    process.kill(plugin.pid, "SIGKILL");
    await waitUntilGone({ pid: plugin.pid, timeoutMs: 10_000 });
    await waitFor({
      what: "exec to work with the next plugin",
      timeoutMs: 90_000,
      intervalMs: 1_000,
      attempt: async () => ((await allocation.exec(["echo", "again"])).stdout === "again\n" ? true : undefined),
    });
    assert.deepEqual(await machineOf(allocation), machine);
    // Its user is still taken for the new plugin.
    const other = await runService({ agent, config: shell("sleep 3600") });
    const uids = (await records(fixture.agent)).map((each) => each.user?.uid);
    assert.equal(new Set(uids).size, 2);
    assert.ok(uids.includes(record?.user?.uid));
    await Promise.all([allocation.stop(), other.stop()]);
    assert.equal(await isRunning(machine.vmmPid), false);
    await assertNothingLeft(fixture.agent);
  });

  it("kill -9 of the plugin in the middle of a start: nothing is left, the task runs in the end", async () => {
    const { agent } = fixture;
    const plugin = await agent.plugin();
    const started = runService({ agent, config: shell("echo ready; sleep 3600"), restarts: 3 });
    // The VM's record is the first that is there of it.
    await waitFor({
      what: "a VM to begin",
      timeoutMs: slowMs,
      intervalMs: 5,
      attempt: async () => ((await records(fixture.agent)).length > 0 ? true : undefined),
    });
    process.kill(plugin.pid, "SIGKILL");
    const allocation: Allocation = await started;
    assert.equal((await records(fixture.agent)).length, 1, "only the second VM is there");
    await allocation.stop();
    await assertNothingLeft(fixture.agent);
  });
});

describe("a group", { skip: skipFirecracker }, () => {
  it("two tasks of one group", async () => {
    const path = join(fixture.agent.directory, "two.nomad");
    const task = (name: string): string => `
      task "${name}" {
        driver = "litegix-fc-driver"
        config {
          image   = "busybox:latest"
          command = "/bin/sh"
          args    = ["-c", "echo I am ${name}; sleep 3600"]
        }
        resources {
          cpu    = 50
          memory = 160
        }
      }`;
    await writeFile(path, `job "two" {\n group "g" {\n ${task("one")}\n ${task("other")}\n }\n}\n`);
    const [id = ""] = await runFile({ agent: fixture.agent, path, job: "two", status: "running" });
    for (const name of ["one", "other"]) {
      const hostname = await fixture.agent.nomad(["alloc", "exec", "-task", name, id, "hostname"]);
      assert.ok(
        (await records(fixture.agent)).some((record) => record.id === hostname.stdout.trim()),
        hostname.stderr,
      );
      await waitFor({
        what: `the log of ${name}`,
        timeoutMs: 30_000,
        attempt: async () => {
          const { stdout } = await fixture.agent.nomad(["alloc", "logs", "-task", name, id]);
          return stdout.includes(`I am ${name}\n`) || undefined;
        },
      });
    }
    assert.equal(new Set((await records(fixture.agent)).map(({ user }) => user?.uid)).size, 2);
    await stopJob(fixture.agent, "two");
    await assertNothingLeft(fixture.agent);
  });
});

describe("memory", { skip: skipFirecracker }, () => {
  it("a guest that fills all its memory lives", async () => {
    const script = "head -c 250m /dev/zero >/tmp/file && echo filled; sleep 3600";
    const allocation = await runService({ agent: fixture.agent, config: shell(script), memoryMib: 192 });
    await allocation.waitForLog(/filled/, { timeoutMs: slowMs });
    const [record] = await records(fixture.agent);
    const used = await memoryOf(record?.cgroups ?? []);
    assert.ok(used.current > 150 * 1024 * 1024, `the VM's cgroup holds ${used.current} bytes`);
    assert.equal(used.oomKills, 0);
    assert.equal(await allocation.status(), "running");
    await allocation.stop();
    await assertNothingLeft(fixture.agent);
  });

  it("a task over its limit is killed in the guest, and Nomad says so", async () => {
    const allocation = await runJob({
      agent: fixture.agent,
      // In small pieces: one large one the guest's kernel would refuse.
      config: shell(`exec awk 'BEGIN { s = sprintf("%4000s", "x"); for (;;) a[i++] = s i }'`),
      memoryMib: 192,
    });
    assert.equal(await allocation.status(), "failed");
    assert.match(await allocation.eventText(), /OOM Killed/);
    await assertNothingLeft(fixture.agent);
  });
});

describe("CPUs", { skip: skipFirecracker }, () => {
  /** A task's part of the host's CPUs, from its VM's cgroup; version 1 has other names and files. */
  async function cpuOf(
    resources: string,
    config: string,
  ): Promise<{ weight: string; max: string; cpus: string; vcpus: string }> {
    const { agent } = fixture;
    const path = join(agent.directory, "cpu.nomad");
    const task = `driver = "litegix-fc-driver"
      config {
        ${shell("echo ready; sleep 3600")}
        ${config}
      }
      resources {
        ${resources}
        memory = 160
      }`;
    await writeFile(path, `job "cpu" {\n group "g" {\n task "main" {\n ${task}\n }\n }\n}\n`);
    const [id = ""] = await runFile({ agent, path, job: "cpu", status: "running" });
    const [record] = await records(agent);
    const read = async (...files: string[]): Promise<string> => {
      for (const group of record?.cgroups ?? []) {
        for (const file of files) {
          const text = await readFile(join(group, file), "utf8").catch(() => "");
          if (text !== "") return text.trim();
        }
      }
      return "";
    };
    const seen = {
      weight: await read("cpu.weight", "cpu.shares"),
      max: await read("cpu.max", "cpu.cfs_quota_us"),
      cpus: await read("cpuset.cpus"),
      vcpus: (await agent.nomad(["alloc", "exec", id, "nproc"])).stdout.trim(),
    };
    await stopJob(agent, "cpu");
    await assertNothingLeft(agent);
    return seen;
  }

  it("resources.cpu is a weight, and with cpu_hard_limit an upper limit", async () => {
    const free = await cpuOf("cpu = 100", "");
    assert.match(free.max, /^(max \d+|-1)$/);
    assert.deepEqual([free.cpus, free.vcpus], ["", "1"]);
    const limited = await cpuOf("cpu = 200", "cpu_hard_limit = true");
    assert.match(limited.max, /^\d+( \d+)?$/);
    assert.ok(Number(limited.weight) > Number(free.weight), `${limited.weight} is no more than ${free.weight}`);
  });

  it("cores are a vCPU each, and pin the VM", async () => {
    const { cpus, vcpus } = await cpuOf("cores = 1", "");
    assert.match(cpus, /^\d+$/);
    assert.equal(vcpus, "1");
  });
});

async function memoryOf(groups: readonly string[]): Promise<{ current: number; oomKills: number }> {
  for (const group of groups) {
    const read = (file: string): Promise<string> => readFile(join(group, file), "utf8").catch(() => "");
    const current = (await read("memory.current")) || (await read("memory.usage_in_bytes"));
    if (current === "") continue;
    const events = (await read("memory.events")) || (await read("memory.oom_control"));
    return { current: Number(current), oomKills: Number(/^oom_kill (\d+)$/m.exec(events)?.[1]) };
  }
  throw new Error("the VM has no memory cgroup");
}
