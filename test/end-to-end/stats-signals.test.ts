// The usage that Nomad shows of a running task, and the signals that it can send.
import assert from "node:assert/strict";
import { before, describe, it } from "node:test";
import { type Allocation, runService } from "./support/allocation.ts";
import { skipVms } from "./support/environment.ts";
import { Fixture } from "./support/fixture.ts";
import { machineOf } from "./support/machines.ts";
import { waitFor } from "./support/wait.ts";

const fixture = Fixture.use();
let allocation: Allocation;

/** The signals that Nomad's nodes offer and a program can catch; SIGNULL has no effect here. */
const caught = (names: readonly string[]): string[] =>
  names.filter((name) => !["SIGNULL", "SIGKILL", "SIGSTOP"].includes(name)).map((name) => name.slice("SIG".length));

let names: readonly string[] = [];
before(async () => {
  if (skipVms !== false) return;
  await fixture.ready();
  const { Attributes: attributes } = await fixture.agent.node();
  names = (attributes["os.signals"] ?? "").split(",").toSorted();
  // busybox knows no SIGIOT: it is SIGABRT's other name.
  const traps = caught(names)
    .filter((name) => name !== "IOT")
    .map((name) => `trap 'echo got ${name}' ${name}`);
  allocation = await runService({
    agent: fixture.agent,
    config: `image = "busybox:latest"
      command = "/bin/sh"
      args = ["-c", ${JSON.stringify(
        // 16 MB of data, then of page cache; and some work.
        `x=$(head -c 16000000 /dev/zero | tr '\\0' x); head -c 10000000 /dev/zero > /tmp/file; ${traps.join("; ")}; ` +
          "echo ready; while :; do i=0; while [ $i -lt 500 ]; do i=$((i+1)); done; sleep 0.1; done",
      )}]`,
  });
  await allocation.waitForLog(/^ready$/m, { timeoutMs: 60_000 });
});

const mebibyte = 1024 * 1024;

interface Usage {
  readonly CpuStats: { readonly Percent: number; readonly UserMode: number; readonly SystemMode: number };
  readonly MemoryStats: Readonly<Record<"RSS" | "Cache" | "MaxUsage" | "Usage" | "Swap" | "KernelUsage", number>>;
}

describe("nomad alloc status -stats", { skip: skipVms }, () => {
  it("prints CPU and memory by their kinds", async () => {
    const { stdout } = await waitFor({
      what: "statistics",
      timeoutMs: 30_000,
      attempt: async () => {
        const result = await fixture.agent.nomad(["alloc", "status", "-stats", allocation.id]);
        return /Memory Stats/.test(result.stdout) ? result : undefined;
      },
    });
    const [, values = ""] = /Memory Stats\n([\s\S]*?)\n\n/.exec(stdout) ?? [];
    for (const name of ["RSS", "Cache", "Max Usage", "Kernel Usage", "Swap"]) assert.ok(values.includes(name), stdout);
    assert.match(stdout, /CPU Stats\nPercent +(System Mode|Throttled|User Mode|Total Ticks)/, stdout);
  });

  it("the guest's cgroup, each process, and the VMM's own use on the host", async () => {
    const { vmmPid } = await machineOf(allocation);
    interface Stats {
      readonly Tasks: Record<string, { readonly ResourceUsage: Usage; readonly Pids: Record<string, Usage> | null }>;
    }
    const task = await waitFor({
      what: "a sample from after the task's writing, with CPU time",
      timeoutMs: 30_000,
      attempt: async () => {
        const stats = (await fixture.agent.get(`/v1/client/allocation/${allocation.id}/stats`)) as Stats;
        const found = stats.Tasks["main"];
        if (found === undefined || found.ResourceUsage.CpuStats.UserMode <= 0) return undefined;
        // Nomad answers with the last sample that it took. On a fast machine that may be from the middle of the task's
        // start.
        return found.ResourceUsage.MemoryStats.Cache > 5 * mebibyte ? found : undefined;
      },
    });
    const { CpuStats: cpu, MemoryStats: memory } = task.ResourceUsage;
    assert.ok(memory.RSS > 14 * mebibyte && memory.RSS < 192 * mebibyte, `RSS ${memory.RSS}`);
    assert.ok(memory.Cache < 100 * mebibyte, `cache ${memory.Cache}`);
    assert.ok(memory.MaxUsage >= memory.Usage && memory.Usage > memory.RSS, JSON.stringify(memory));
    assert.ok(memory.KernelUsage > 0);
    assert.equal(memory.Swap, 0);
    assert.ok(cpu.Percent > 0);
    const pids = task.Pids ?? {};
    const own = pids["1"];
    assert.ok(own !== undefined && own.MemoryStats.RSS > 14 * mebibyte, JSON.stringify(pids));
    const vmm = pids[`vmm-${vmmPid}`];
    assert.ok(vmm !== undefined && vmm.MemoryStats.RSS > 50 * mebibyte, JSON.stringify(pids));
    assert.ok(Object.keys(pids).some((key) => /^supervisor-\d+$/.test(key)));
    // The task's cost to the host is the usage of its VM's processes.
    const hosts = Object.entries(pids).filter(([key]) => key.includes("-"));
    const sum = hosts.reduce((total, [, usage]) => total + usage.CpuStats.Percent, 0);
    assert.ok(Math.abs(sum - cpu.Percent) < 0.01, `${sum} is not ${cpu.Percent}`);
  });
});

describe("nomad alloc signal", { skip: skipVms }, () => {
  const signal = async (name: string) => await fixture.agent.nomad(["alloc", "signal", "-s", name, allocation.id]);
  /** The kernel's state of the task's own process. */
  const state = async (): Promise<string> =>
    (await allocation.exec(["sed", "-n", "s/^State:\\t\\(.\\).*/\\1/p", "/proc/1/status"])).stdout.trim();

  it("every name that Nomad offers reaches the task as that signal", async () => {
    assert.ok(names.length >= 28, names.join());
    for (const name of caught(names)) {
      const { exitCode, stderr } = await signal(name === "IOT" ? "SIGIOT" : `SIG${name}`);
      assert.equal(exitCode, 0, `${name}: ${stderr}`);
      const shown = name === "IOT" ? "ABRT" : name;
      const already = name === "IOT" ? 2 : 1;
      await waitFor({
        what: `the task to have got ${name}`,
        timeoutMs: 15_000,
        intervalMs: 50,
        attempt: async () => (await allocation.log()).split(`got ${shown}\n`).length > already || undefined,
        seen: () => allocation.log(),
      });
    }
    const got = (await allocation.log()).match(/^got .*$/gm) ?? [];
    assert.equal(got.length, caught(names).length);
  });

  it("SIGNULL only probes; SIGSTOP and SIGCONT stop and resume it; an unknown signal is refused", async () => {
    assert.equal((await signal("SIGNULL")).exitCode, 0);
    assert.equal((await signal("SIGSTOP")).exitCode, 0);
    assert.equal(await state(), "T");
    assert.equal((await signal("SIGCONT")).exitCode, 0);
    assert.match(await state(), /[RS]/);
    const { exitCode, stderr } = await signal("SIGNONE");
    assert.notEqual(exitCode, 0);
    assert.match(stderr, /unknown signal "SIGNONE"/);
  });

  it("SIGKILL ends it", async () => {
    assert.equal((await signal("SIGKILL")).exitCode, 0);
    assert.equal((await allocation.exit()).exitCode, 137);
  });
});
