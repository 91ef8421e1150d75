// The jobs of example/ under a real Nomad, run as its README says. One of them outlives plugin and agent.
import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, it } from "node:test";
import { readTaps } from "../../src/network/plan/address-pool.ts";
import { skipVms } from "./support/environment.ts";
import { Fixture } from "./support/fixture.ts";
import { records, runFile, slowMs, stopJob } from "./support/jailed.ts";
import { waitUntilNoMachineIsLeft } from "./support/machines.ts";
import { waitUntilGone } from "./support/processes.ts";
import { waitFor } from "./support/wait.ts";

const examples = join(import.meta.dirname, "../../example");

const fixture = Fixture.use();

async function runExample(name: string, job: string, status: string): Promise<string> {
  const path = join(examples, `${name}.nomad`);
  const [id = ""] = await runFile({ agent: fixture.agent, path, job, status });
  return id;
}

async function logOf(id: string): Promise<string> {
  return (await fixture.agent.nomad(["alloc", "logs", id])).stdout;
}

describe("the example jobs", { skip: skipVms }, () => {
  let taps: string[] = [];

  it("simple-test prints its line and ends", async () => {
    assert.match(
      await logOf(await runExample("simple-test", "simple-firecracker", "complete")),
      /hello from a microVM/,
    );
  });

  it("detailed-test describes its VM", async () => {
    const log = await logOf(await runExample("detailed-test", "detailed-test", "complete"));
    assert.match(log, /== cpu\n2\n/);
    assert.match(log, /== done/);
  });

  it("exec-test runs commands, and goes on when the plugin is killed and the agent restarted", async () => {
    const { agent } = fixture;
    const id = await runExample("exec-test", "exec-test", "running");
    const exec = async (...argv: string[]): Promise<string> =>
      (await agent.nomad(["alloc", "exec", id, ...argv])).stdout;
    assert.match(await exec("env"), /^GREETING=hello$/m);
    const ended = await agent.nomad(["alloc", "exec", id, "/bin/sh", "-c", "echo out; echo err >&2; exit 43"]);
    assert.deepEqual([ended.exitCode, ended.stdout, ended.stderr.includes("err")], [43, "out\n", true]);
    const counted = await agent.nomad(["alloc", "exec", "-i", id, "wc", "-c"], { stdin: "x".repeat(10_000) });
    assert.equal(counted.stdout.trim(), "10000");

    const vm = (await exec("hostname")).trim();
    const execWorksAgain = async (what: string): Promise<void> => {
      await waitFor({
        what: `exec to work after ${what}`,
        timeoutMs: slowMs,
        intervalMs: 500,
        attempt: async () => ((await exec("hostname")).trim() === vm ? true : undefined),
      });
      assert.deepEqual(
        (await records(agent)).map((record) => record.id),
        [vm],
      );
    };
    taps = (await records(agent)).flatMap(({ network }) => network?.tap ?? []);
    await exec("touch", "/tmp/from-before");
    const plugin = await agent.plugin();
    process.kill(plugin.pid, "SIGKILL");
    await waitUntilGone({ pid: plugin.pid, timeoutMs: 10_000 });
    await execWorksAgain("kill -9 of the plugin");
    await agent.interrupt();
    await agent.launch();
    await execWorksAgain("a restart of the agent");
    assert.equal((await exec("ls", "/tmp/from-before")).trim(), "/tmp/from-before");
    await stopJob(agent, "exec-test");
  });

  it("leave nothing", async () => {
    await waitUntilNoMachineIsLeft(fixture.agent);
    const left = await readTaps();
    assert.ok(taps.length > 0 && taps.every((tap) => !left.has(tap)), taps.join());
  });
});
