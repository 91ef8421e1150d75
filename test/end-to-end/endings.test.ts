// How tasks end: the image's stop signal, out of memory or not, and tasks that try to take their VM down with them.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { GuestClient } from "../../src/guest/client.ts";
import { type Allocation, runJob, runService } from "./support/allocation.ts";
import { skipVms } from "./support/environment.ts";
import { Fixture } from "./support/fixture.ts";
import { ImageBuilder } from "./support/image-builder.ts";
import { machineOf } from "./support/machines.ts";
import { waitFor } from "./support/wait.ts";

const fixture = Fixture.use();
const image = 'image = "busybox:latest"';
const shell = (line: string): string => `${image}\ncommand = "/bin/sh"\nargs = ["-c", ${JSON.stringify(line)}]`;
/** Takes memory in small pieces until there is none; the kernel would refuse one large piece. */
const glutton = `awk 'BEGIN { s = sprintf("%4000s", "x"); for (;;) a[i++] = s i }'`;

async function lastEvent(allocation: Allocation): Promise<{ exitCode: number; oomKilled: string; message: string }> {
  const { exitCode } = await allocation.exit();
  const event = (await allocation.events()).find(({ Type }) => Type === "Terminated");
  return {
    exitCode,
    oomKilled: event?.Details?.["oom_killed"] ?? "",
    message: event?.DisplayMessage ?? "",
  };
}

describe("out of memory", { skip: skipVms, concurrency: 2 }, () => {
  it("the task's own process", async () => {
    const ended = await lastEvent(await runJob({ agent: fixture.agent, config: shell(`exec ${glutton}`) }));
    assert.deepEqual({ ...ended, message: "" }, { exitCode: 137, oomKilled: "true", message: "" });
    assert.match(ended.message, /OOM Killed/);
  });

  it("under an init", async () => {
    const config = `${shell(`exec ${glutton}`)}\ninit = true`;
    const ended = await lastEvent(await runJob({ agent: fixture.agent, config }));
    assert.deepEqual({ ...ended, message: "" }, { exitCode: 137, oomKilled: "true", message: "" });
  });

  it("a child: the task goes on, and its end is its own", async () => {
    const allocation = await runJob({ agent: fixture.agent, config: shell(`${glutton}; echo child $?; exit 3`) });
    const ended = await lastEvent(allocation);
    assert.deepEqual({ ...ended, message: "" }, { exitCode: 3, oomKilled: "false", message: "" });
    assert.match(ended.message, /not OOM killed itself, but a child process was/);
    await allocation.waitForLog(/^child 137$/m);
  });

  it("a child whose data leave no room for the programs' own pages: the kernel kills nobody", async () => {
    const script = `
      group=/sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)
      bytes=$(($(cat $group/memory.max) - $(cat $group/memory.current) + 300000))
      fill() {
        head -c $bytes /dev/zero
        while echo; do for i in $(seq 20); do cat /bin/busybox; done > /dev/null; done
      }
      fill | tail -c $bytes > /dev/null
      echo child $?
      exit 3`;
    const allocation = await runJob({ agent: fixture.agent, config: shell(script) });
    const ended = await lastEvent(allocation);
    assert.deepEqual({ ...ended, message: "" }, { exitCode: 3, oomKilled: "false", message: "" });
    assert.match(ended.message, /not OOM killed itself, but a child process was/);
    await allocation.waitForLog(/^child 137$/m);
  });

  it("a program that reads files larger than its free memory is left alone", async () => {
    const script = `
      head -c 60000000 /dev/zero > /large; sync
      group=/sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)
      bytes=$(($(cat $group/memory.max) - 5000000))
      (head -c $bytes /dev/zero; exec sleep 1d) | tail -c $bytes > /dev/null &
      anonymous() { sed -n 's/^anon //p' $group/memory.stat; }
      until [ $(anonymous) -gt $((bytes - 1000000)) ]; do cat /large > /dev/null; done
      now() { cut -d. -f1 /proc/uptime; }
      end=$(($(now) + 10)); until [ $(now) -ge $end ]; do cat /large > /dev/null; done
      [ $(anonymous) -gt $((bytes - 1000000)) ] && echo held`;
    const allocation = await runJob({ agent: fixture.agent, config: shell(script) });
    const ended = await lastEvent(allocation);
    assert.deepEqual(ended, { exitCode: 0, oomKilled: "false", message: "Exit Code: 0" });
    await allocation.waitForLog(/^held$/m);
  });

  it("a child, and later a kill that Nomad asked for", async () => {
    const allocation = await runService({
      agent: fixture.agent,
      task: 'kill_timeout = "1s"',
      config: shell(`${glutton}; echo child $?; exec sleep 1d`),
    });
    await allocation.waitForLog(/^child 137$/m);
    await allocation.stop();
    const ended = await lastEvent(allocation);
    assert.deepEqual({ ...ended, message: "" }, { exitCode: 137, oomKilled: "false", message: "" });
  });

  it("an exit code of 137 without a kill", async () => {
    const ended = await lastEvent(await runJob({ agent: fixture.agent, config: shell("exit 137") }));
    assert.deepEqual({ ...ended, message: "" }, { exitCode: 137, oomKilled: "false", message: "" });
  });
});

describe("an image with a STOPSIGNAL", { skip: skipVms }, () => {
  let images: ImageBuilder;
  before(async () => {
    await fixture.ready();
    images = await ImageBuilder.create();
    await images.create("stops");
    await images.configure("stops", ["--config.stopsignal", "SIGRTMIN+3"]);
    await fixture.registry.push({ source: images.source("stops"), name: "e2e/stops:v1" });
  });
  after(() => images[Symbol.asyncDispose]());

  it("is stopped by that signal", async () => {
    const allocation = await runService({
      agent: fixture.agent,
      config: `image = "${fixture.registry.address}/e2e/stops:v1"
        command = "/bin/sh"
        args = ["-c", "trap 'echo got; exit 6' RTMIN+3 37; echo ready; while :; do sleep 0.1; done"]`,
    });
    await allocation.waitForLog(/^ready$/m);
    await allocation.stop();
    assert.equal((await allocation.exit()).exitCode, 6);
  });
});

describe("a task that wants to take its VM down", { skip: skipVms }, () => {
  let allocation: Allocation;
  before(async () => {
    await fixture.ready();
    allocation = await runService({ agent: fixture.agent, config: shell("exec sleep 1d") });
  });

  async function run(line: string): Promise<string> {
    const { exitCode, stdout, stderr } = await allocation.exec(["/bin/sh", "-c", line], { timeoutMs: 60_000 });
    assert.equal(exitCode, 0, stderr);
    return stdout;
  }

  it("sees nothing of init, and can't reach it as root", async () => {
    const found = await run(`
      for process in /proc/[0-9]*; do readlink $process/exe; done | sed 's,^/bin/.*,/bin,' | sort -u
      kill -9 -1
      mknod /m c 1 1; cat /m 2>&1
      echo b 2>&1 > /proc/sysrq-trigger
      echo 1 2>&1 > /sys/fs/cgroup/agent/cgroup.kill
      mount -o remount,rw /sys/fs/cgroup 2>&1
      reboot -f 2>&1
      ls -d /proc/[0-9]*/root/modules 2>&1 | head -1
      echo still here
    `);
    assert.equal(
      found,
      `/bin
cat: can't open '/m': Operation not permitted
/bin/sh: can't create /proc/sysrq-trigger: Read-only file system
/bin/sh: can't create /sys/fs/cgroup/agent/cgroup.kill: Read-only file system
mount: permission denied (are you root?)
reboot: (null): Operation not permitted
ls: /proc/[0-9]*/root/modules: No such file or directory
still here
`,
    );
  });

  it("a memory hog leaves the agent answering", async () => {
    await run(`(while :; do ${glutton}; done) > /dev/null 2>&1 & ${glutton}; echo $?`);
    assert.equal(await run("echo alive"), "alive\n");
    await run("kill -9 -1; echo over");
  });

  it("a fork bomb leaves the agent answering", async () => {
    // The bomb goes off once this shell has started its own programs.
    await run("b() { b | b & }; { sleep 1; b; } > /dev/null 2>&1 & sleep 3; echo lit");
    const { directory } = await machineOf(allocation);
    const { vsockPath } = JSON.parse(await readFile(join(directory, "machine.json"), "utf8")) as { vsockPath: string };
    using guest = new GuestClient({ vsockPath });
    // Within the client's deadline of 5 s.
    await guest.hello();
    await guest.stats();
    // An exec'd program gets one share in hundreds; under emulation its start may take too long here.
    const { stdout } = await waitFor({
      what: "an exec beside the fork bomb",
      timeoutMs: 60_000,
      attempt: async () => {
        const result = await allocation.exec(["/bin/echo", "alive"]);
        return result.exitCode === 0 ? result : undefined;
      },
    });
    assert.equal(stdout, "alive\n");
  });

  it("privileged: init is not among the processes that it sees, and survives any write to its control group", async () => {
    const privileged = await runService({
      agent: fixture.agent,
      task: 'kill_timeout = "1s"',
      config: `${shell("exec sleep 1d")}\nprivileged = true`,
    });
    const line = `
      mkdir /p; mount -t proc proc /p
      for process in /proc/[0-9]* /p/[0-9]*; do readlink $process/exe; done | sed 's,^/bin/.*,/bin,' | sort -u
      readlink /proc/1/exe; head -c 1 /proc/1/mem 2>&1
      kill -9 -1
      mount -o remount,rw /sys/fs/cgroup && echo 1 > /sys/fs/cgroup/agent/cgroup.kill && echo killed all of init\\'s group
      sort -u /sys/fs/cgroup/agent/cgroup.procs
    `;
    const { exitCode, stdout, stderr } = await privileged.exec(["/bin/sh", "-c", line]);
    assert.equal(
      stdout,
      "/bin\n/bin/sh\nhead: /proc/1/mem: Input/output error\nkilled all of init's group\n0\n",
      stderr,
    );
    assert.equal(exitCode, 0);
    const { stdout: after } = await privileged.exec(["echo", "alive"]);
    assert.equal(after, "alive\n");
    await privileged.stop();
    assert.equal((await privileged.exit()).exitCode, 137);
  });

  it("and can be stopped", async () => {
    await allocation.stop();
    assert.equal((await allocation.exit()).exitCode, 137);
  });
});
