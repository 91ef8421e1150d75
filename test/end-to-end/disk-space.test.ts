// The host's disk: a task's writable disk has its space from the start, whatever fills the rest.
import assert from "node:assert/strict";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { type Allocation, runService, startJob } from "./support/allocation.ts";
import { run } from "./support/command.ts";
import { skipVms } from "./support/environment.ts";
import { Fixture } from "./support/fixture.ts";
import { machineOf, waitUntilNoMachineIsLeft, waitUntilNothingIsLeft } from "./support/machines.ts";

const diskMib = 64;
const bandwidthMib = 16;
const fixture = Fixture.use(
  (address) => `
    registry "docker.io" { mirrors = ["http://${address}"] }
    allow_oversize = true
    disk {
      size      = ${diskMib}
      min_free  = 16
      bandwidth = ${bandwidthMib}
    }`,
  { baseDiskMib: 600 },
);

const waiting = `
  image   = "busybox:latest"
  command = "/bin/sleep"
  args    = ["1d"]`;

const waitingForFile = `
  image   = "busybox:latest"
  command = "/bin/sh"
  args    = ["-c", "until [ -e /go ]; do sleep 0.2; done; exit 42"]`;

/** Takes all of the base path's file system, root's reserve and the prepared disks of later VMs too. Resolves with the file. */
async function fill(name: string): Promise<string> {
  const path = join(fixture.agent.basePath, name);
  await rm(join(fixture.agent.basePath, "spare-disks"), { recursive: true, force: true });
  await run({ file: "dd", args: ["if=/dev/zero", `of=${path}`, "bs=64k"], timeoutMs: 120_000 });
  await run({ file: "sync", args: ["-f", path] });
  const { stdout } = await run({ file: "df", args: ["--output=avail", fixture.agent.basePath] });
  assert.match(stdout, /^\s*Avail\s+0\s*$/);
  return path;
}

/** Writes most of a VM's disk, through to the host. */
async function write(allocation: Allocation): Promise<void> {
  const script =
    "dd if=/dev/urandom of=/big bs=1M count=44 2>/dev/null && sync && md5sum /big > /sum && sync && md5sum -c /sum";
  const result = await allocation.exec(["/bin/sh", "-c", script], { timeoutMs: 60_000 });
  assert.equal(result.exitCode, 0, `${result.stdout}${result.stderr}`);
}

describe("the host's disk", { skip: skipVms }, () => {
  it("full, VMs write on up to their disks' size; another start is refused until there is space", async () => {
    const { agent } = fixture;
    const [first, second, ending] = await Promise.all([
      runService({ agent, config: waiting }),
      runService({ agent, config: waiting }),
      startJob({ agent, config: waitingForFile }),
    ]);
    await ending.waitForStatus(["running"]);
    const filling = await fill("filling");
    await using _removed = { [Symbol.asyncDispose]: () => rm(filling, { force: true }) };
    await write(first);
    await write(second);
    // The end of a task reaches Nomad too.
    const { directory } = await machineOf(ending);
    await ending.exec(["touch", "/go"]);
    assert.deepEqual(await ending.exit(), { exitCode: 42, signal: 0 });
    // Its disk is free again.
    await waitUntilNothingIsLeft(directory);
    const more = await fill("filling-more");
    await using _removedMore = { [Symbol.asyncDispose]: () => rm(more, { force: true }) };
    const third = await startJob({ agent, config: waiting });
    assert.equal(await third.waitForEnd(), "failed");
    assert.match(
      await third.eventText(),
      /the file system of \S+ is too full for (the task's writable disk of 64 MiB|image \S+): .*\d+ MiB are free, and 16 MiB must stay so \(disk\.min_free\): free space there.* \(disk_full\)/,
    );
    assert.equal(await first.status(), "running");
    assert.equal(await second.status(), "running");
    await rm(filling);
    await runService({ agent, config: waiting });
    await Promise.all([first.stop(), second.stop()]);
  });

  it("holds as large a disk as the job asks for; allow_oversize lets a VM be larger than its reservation", async () => {
    const allocation = await runService({
      agent: fixture.agent,
      config: `${waiting}\nmem_size = 256\nstorage_opt = {\n size = "100M"\n }`,
    });
    const { stdout } = await allocation.exec(["/bin/sh", "-c", "df -m / | tail -1; grep MemTotal /proc/meminfo"]);
    const [, rootMib] = /^\S+ +(\d+)/m.exec(stdout) ?? [];
    assert.ok(Number(rootMib) > diskMib + 16 && Number(rootMib) <= 100, stdout);
    assert.ok(Number(/MemTotal: +(\d+)/.exec(stdout)?.[1]) > 200 * 1024, stdout);
    await allocation.stop();
  });

  it("is as slow for a VM as the plugin says", async () => {
    const allocation = await runService({ agent: fixture.agent, config: waiting });
    const sizeMib = 48;
    const dd = `dd if=/dev/zero of=/big bs=1M count=${sizeMib} conv=fsync`;
    const { exitCode, stderr, elapsedMs } = await allocation.exec(["/bin/sh", "-c", dd]);
    assert.equal(exitCode, 0, stderr);
    // The limit lets a second's worth through at once.
    assert.ok(elapsedMs > ((sizeMib - bandwidthMib) / bandwidthMib) * 1000, `${elapsedMs} ms`);
    await allocation.stop();
  });
});

describe("after tasks on a full disk", { skip: skipVms }, () => {
  it("nothing is left of them", async () => {
    const jobs = (await fixture.agent.get("/v1/jobs")) as { ID: string }[];
    await Promise.all(jobs.map(({ ID }) => fixture.agent.nomad(["job", "stop", "-detach", "-yes", ID])));
    await waitUntilNoMachineIsLeft(fixture.agent);
  });
});
