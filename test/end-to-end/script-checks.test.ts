// Commands that Nomad itself runs in a task, by ExecTask: script checks, which need Consul, and a template's
// change_mode = "script".
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { type CheckUpdate, FakeConsul } from "../fakes/fake-consul.ts";
import { type Allocation, startJob } from "./support/allocation.ts";
import { skipVms } from "./support/environment.ts";
import { Fixture } from "./support/fixture.ts";
import { waitFor } from "./support/wait.ts";

const consul = await FakeConsul.start();
const fixture = Fixture.use(undefined, {
  agentConfig: `consul {
    address          = "${consul.address}"
    auto_advertise   = false
    server_auto_join = false
    client_auto_join = false
  }`,
});
let allocation: Allocation;

const script = (line: string): string => `command = "/bin/sh"\nargs = ["-c", ${JSON.stringify(line)}]`;
const check = (name: string, command: string, timeout = "20s"): string =>
  `check {\ntype = "script"\nname = "${name}"\ninterval = "2s"\ntimeout = "${timeout}"\n${command}\n}`;
const template = (key: string, command: string, timeout = "20s"): string => `template {
  destination = "local/${key}"
  data        = <<END
{{ with nomadVar (printf "nomad/jobs/%s" (env "NOMAD_JOB_NAME")) }}{{ .${key} }}{{ end }}
END
  change_mode = "script"
  change_script {
    ${command}
    timeout       = "${timeout}"
    fail_on_error = false
  }
}`;

const variables = (values: Record<string, string>) =>
  fixture.agent.nomad([
    ...["var", "put", "-force", "nomad/jobs/e2e-1"],
    ...Object.entries(values).map(([key, value]) => `${key}=${value}`),
  ]);

before(async () => {
  if (skipVms !== false) return;
  await fixture.ready();
  // The job's templates wait for it.
  assert.equal((await variables({ greeting: "one", slow: "one" })).exitCode, 0);
  allocation = await startJob({
    agent: fixture.agent,
    type: "service",
    task: `
      env  { GREETING = "hello" }
      user = "www-data"
      service {
        name     = "checked"
        provider = "consul"
        ${check("passes", script("echo $GREETING from $(id -un); echo not shown >&2"))}
        ${check("warns", script("echo careful; exit 1"))}
        ${check("fails", script("echo broken; exit 7"))}
        ${check("missing", 'command = "/no/such/check"')}
        ${check("hangs", script("trap '' HUP TERM; sleep 701 & sleep 701"), "2s")}
      }
      ${template("greeting", script("echo ran as $(id -un) with $GREETING >> /tmp/ran"))}
      ${template("slow", script("trap '' HUP TERM; setsid sleep 702 & sleep 702; :"), "2s")}
    `,
    config: 'image = "busybox:latest"\ncommand = "sleep"\nargs = ["1d"]',
  });
  await allocation.waitForStatus(["running"]);
});
after(() => consul[Symbol.asyncDispose]());

const seen = async (name: string, output: RegExp): Promise<CheckUpdate> =>
  await waitFor({
    what: `the check ${name} to report ${output}`,
    timeoutMs: 60_000,
    attempt: () => consul.updates.find((update) => update.name === name && output.test(update.output)),
    seen: () => JSON.stringify(consul.updates.slice(-20)),
  });

/** Counts among all processes in the VM: the task's and those that Nomad runs in it. */
async function running(command: string): Promise<number> {
  const { stdout } = await allocation.exec(["ps", "-o", "args"]);
  return stdout.split("\n").filter((line) => line === command).length;
}

describe("script checks", { skip: skipVms }, () => {
  it("exit codes 0, 1 and others, the output, in the task's world", async () => {
    assert.deepEqual(await seen("passes", /./), {
      name: "passes",
      status: "passing",
      output: "hello from www-data\n",
    });
    assert.deepEqual(await seen("warns", /./), { name: "warns", status: "warning", output: "careful\n" });
    assert.deepEqual(await seen("fails", /./), { name: "fails", status: "critical", output: "broken\n" });
  });

  it("a program that is not there is critical, and the check says so", async () => {
    const { status, output } = await seen("missing", /./);
    assert.equal(status, "critical");
    assert.match(output, /exec: "\/no\/such\/check": no such file or directory/);
  });

  it("a timeout kills the whole tree; Nomad reports the timeout itself, without waiting for the driver's answer", async () => {
    const { status } = await seen("hangs", /context deadline exceeded|did not end within 2 s and was killed/);
    assert.equal(status, "critical");
    // The next run may have begun, but none before it may still run.
    await waitFor({
      what: "two more runs of the check",
      timeoutMs: 60_000,
      attempt: () => consul.updates.filter(({ name }) => name === "hangs").length >= 3 || undefined,
    });
    assert.ok((await running("sleep 701")) <= 2);
  });
});

describe('a template with change_mode = "script"', { skip: skipVms }, () => {
  const events = async (pattern: RegExp): Promise<string> =>
    await waitFor({
      what: `an event ${pattern}`,
      timeoutMs: 60_000,
      attempt: async () => pattern.exec(await allocation.eventText())?.[0],
      seen: () => allocation.eventText(),
    });

  it("a change runs the script in the task's world; a slow one is killed with its tree, and the task lives", async () => {
    assert.equal((await variables({ greeting: "two", slow: "two" })).exitCode, 0);
    await events(/Template successfully ran script \/bin\/sh .*Exit code: 0/);
    const { stdout } = await allocation.exec(["cat", "/tmp/ran"]);
    assert.equal(stdout, "ran as www-data with hello\n");
    await events(/Template failed to run script \/bin\/sh .*\/bin\/sh did not end within 2 s and was killed/);
    await waitFor({
      what: "the script's tree to be gone",
      timeoutMs: 5_000,
      attempt: async () => (await running("sleep 702")) === 0 || undefined,
    });
    assert.equal(await allocation.status(), "running");
  });
});
