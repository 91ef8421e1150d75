// A jailed VM's memory and CPUs on the host, under the real Firecracker and a real Nomad. They have a file of their own
// because the machine of test/rig does not live long enough for these and the others.
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { runJob, runService } from "./support/allocation.ts";
import { skipFirecracker } from "./support/environment.ts";
import { Fixture } from "./support/fixture.ts";
import { assertNothingLeft, records, runFile, shell, slowMs, stopJob } from "./support/jailed.ts";

const fixture = Fixture.use();

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
      // In small pieces: the guest's kernel would refuse one large piece.
      config: shell(`exec awk 'BEGIN { s = sprintf("%4000s", "x"); for (;;) a[i++] = s i }'`),
      memoryMib: 192,
    });
    assert.equal(await allocation.status(), "failed");
    assert.match(await allocation.eventText(), /OOM Killed/);
    await assertNothingLeft(fixture.agent);
  });
});

describe("CPUs", { skip: skipFirecracker }, () => {
  /** A task's share of the host's CPUs, from its VM's cgroup. Version 1 has other names and files. */
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
    // All cores, unless Nomad has reserved some.
    assert.match(free.cpus, /^0/);
    assert.equal(free.vcpus, "1");
    const limited = await cpuOf("cpu = 200", "cpu_hard_limit = true");
    assert.match(limited.max, /^\d+( \d+)?$/);
    assert.ok(Number(limited.weight) > Number(free.weight), `${limited.weight} is at most ${free.weight}`);
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
