// The real Firecracker without its jail, which an operator may choose: loudly reported where operators look, and whole
// all the same.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { describe, it } from "node:test";
import { runService } from "./support/allocation.ts";
import { skipFirecracker } from "./support/environment.ts";
import { Fixture } from "./support/fixture.ts";
import { assertNothingLeft, shell } from "./support/jailed.ts";
import { assertVmmIsApart, machineOf } from "./support/machines.ts";

const fixture = Fixture.use(
  (address) => `registry "docker.io" { mirrors = ["http://${address}"] }
    jailer {
      enabled = false
    }`,
);

describe("without a jail", { skip: skipFirecracker }, () => {
  it("the fingerprint warns", async () => {
    const info = await fixture.agent.driverInfo();
    assert.ok(info?.Healthy === true, info?.HealthDescription ?? "no fingerprint");
    assert.match(info.HealthDescription, /jail/);
    assert.equal(info.Attributes?.["driver.litegix-fc-driver.jailed"], "false");
  });

  it("a task runs, its VMM is root's, and it leaves nothing", async () => {
    const allocation = await runService({ agent: fixture.agent, config: shell("echo ready; sleep 3600") });
    await assertVmmIsApart(allocation, ["net", "ipc", "uts", "cgroup"]);
    const { vmmPid } = await machineOf(allocation);
    const status = await readFile(`/proc/${vmmPid}/status`, "latin1");
    assert.match(status, /^Uid:\t0\t/m);
    const { stdout, stderr } = await allocation.exec(["echo", "again"]);
    assert.equal(stdout, "again\n", stderr);
    await allocation.stop();
    await assertNothingLeft(fixture.agent);
  });
});
