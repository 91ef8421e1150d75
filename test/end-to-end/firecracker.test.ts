// The real Firecracker, jailed, under a real Nomad: the ends that a cluster sees, and a group's tasks. After each test
// nothing is left on the host. On a machine without KVM, test/rig provides it.
import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { type Allocation, runService } from "./support/allocation.ts";
import { skipFirecracker } from "./support/environment.ts";
import { Fixture } from "./support/fixture.ts";
import { assertNothingLeft, records, runFile, shell, slowMs, stopJob } from "./support/jailed.ts";
import { machineOf, waitUntilNothingIsLeft } from "./support/machines.ts";
import { isRunning, waitUntilGone } from "./support/processes.ts";
import { describeRights, rightsOf } from "./support/rights.ts";
import { waitFor } from "./support/wait.ts";

const fixture = Fixture.use();

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

  it("kill -9 of the plugin changes nothing for the VM, and nothing is left of it at its end", async () => {
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
    // The new plugin still counts its user as taken.
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
    // The VM's record is its first file.
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

describe("a VM's processes on the host", { skip: skipFirecracker }, () => {
  it("have few rights, each in a cgroup of its own", async () => {
    const allocation = await runService({ agent: fixture.agent, config: shell("echo ready; sleep 3600") });
    const { shimPid, vmmPid } = await machineOf(allocation);
    const [record] = await records(fixture.agent);
    const [supervisor, vmm] = await Promise.all([rightsOf(shimPid), rightsOf(vmmPid)]);
    for (const [name, rights] of Object.entries({ supervisor, vmm })) console.log(describeRights(name, rights));
    assert.equal(supervisor.uid, 0);
    // DAC_OVERRIDE and KILL.
    assert.deepEqual([supervisor.effective, supervisor.bounding], ["0000000000000022", "0000000000000000"]);
    assert.deepEqual(supervisor.namespaces, ["mnt", "net", "ipc", "uts", "cgroup"]);
    assert.equal(supervisor.memoryLimitMib, 64);
    assert.equal(supervisor.mounts.length, 1);
    assert.match(supervisor.mounts[0] ?? "", /^\/ ro,/);
    assert.equal(vmm.uid, record?.user?.uid);
    assert.equal(vmm.effective, "0000000000000000");
    for (const { noNewPrivileges, seccomp } of [supervisor, vmm]) {
      assert.deepEqual([noNewPrivileges, seccomp], [true, 2]);
    }
    assert.equal(supervisor.cgroup, `${vmm.cgroup}-supervisor`);
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
