// `doctor --production` beside a real agent: it takes the plugin's settings and Nomad's own from there.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { Agent, driverName } from "./support/agent.ts";
import { type CommandResult, run } from "./support/command.ts";
import { driverPath } from "./support/environment.ts";

interface Report {
  readonly settings: string;
  readonly counts: Readonly<Record<string, number>>;
  readonly checks: readonly { id: string; status: string; found: string; reason: string; cure: string }[];
}

async function doctor(address: string, ...args: readonly string[]): Promise<CommandResult> {
  const env = { NOMAD_ADDR: address, NOMAD_TOKEN: "" };
  return await run({ file: driverPath, args: ["doctor", "--production", ...args], env });
}

function statuses(report: Report): Record<string, string> {
  return Object.fromEntries(report.checks.map(({ id, status }) => [id, status]));
}

describe("doctor --production", () => {
  let agent: Agent;
  before(async () => {
    agent = await Agent.start({
      rawExec: true,
      pluginConfig: 'registry "docker.io" { mirrors = ["http://127.0.0.1:1"] }\nnetwork { allow_metadata = true }',
    });
  });
  after(() => agent[Symbol.asyncDispose]());

  it("judges the agent and the plugin's settings in it, as JSON, and exits with 1", async () => {
    const { exitCode, stdout, stderr } = await doctor(agent.address, "--json");
    assert.equal(exitCode, 1, stderr);
    const report = JSON.parse(stdout) as Report;
    assert.equal(report.settings, `the agent at ${agent.address}`);
    const found = statuses(report);
    assert.equal(
      Object.values(report.counts).reduce((sum, count) => sum + count),
      report.checks.length,
    );
    for (const id of ["nomad_acl", "nomad_raw_exec", "nomad_reserved_ports", "metadata"])
      assert.equal(found[id], "warning", id);
    for (const id of ["nomad_addresses", "network_limits", "base_path"]) assert.equal(found[id], "ok", id);
    assert.equal(found["nomad_tls"], "not_applicable");
    assert.equal(found["rowhammer"], "unknown");
  });

  it("takes options before the agent's settings", async () => {
    const { stdout } = await doctor(agent.address, "--json", "--vmm", "firecracker", "--firecracker-path", "/none");
    assert.equal(statuses(JSON.parse(stdout) as Report)["vmm"], "ok");
  });

  it("says what it found, why that matters and the cure, as text", async () => {
    const { exitCode, stdout } = await doctor(agent.address);
    assert.equal(exitCode, 1);
    assert.match(stdout, /^ready$/m);
    assert.match(
      stdout,
      /^ {2}WARN {5}nomad_acl +acl\.enabled is false\n +why: .+\n +cure: Set `acl \{ enabled = true \}`/m,
    );
    assert.match(stdout, /^\d+ ok, \d+ warnings, \d+ not applicable, \d+ unknown\n$/m);
  });

  it("does without an agent, and says so at each check of Nomad", async () => {
    const { exitCode, stdout } = await doctor("http://127.0.0.1:1", "--json", "--rootfs-base-path", agent.basePath);
    assert.equal(exitCode, 1);
    const { checks } = JSON.parse(stdout) as Report;
    const nomad = checks.filter(({ id }) => id.startsWith("nomad_"));
    assert.equal(nomad.length, 5);
    for (const { status, found } of nomad) {
      assert.equal(status, "unknown");
      assert.match(found, /^not checked: no Nomad agent answers at http:\/\/127\.0\.0\.1:1/);
    }
  });

  it("the node's attributes have the ids", async () => {
    const { Attributes: attributes } = await agent.node();
    const list = (name: string): string[] => (attributes[`driver.${driverName}.${name}`] ?? "").split(",");
    assert.ok(list("production_warnings").includes("metadata"));
    assert.ok(list("production_ok").includes("single_tenant"));
    assert.ok(!list("production_ok").includes("metadata"));
  });
});
