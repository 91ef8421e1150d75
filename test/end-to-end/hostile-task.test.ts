// Hostile tasks whose root, with docker's capabilities, attacks the machine's init through the things that they share:
// the user's quotas in the kernel, files, descriptors. The programs are perl, which reaches every system call.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { before, describe, it } from "node:test";
import { GuestClient } from "../../src/guest/client.ts";
import { type Allocation, runJob, runService } from "./support/allocation.ts";
import { skipVms } from "./support/environment.ts";
import { ExecSession } from "./support/exec-session.ts";
import { Fixture } from "./support/fixture.ts";
import { copyPrograms, ImageBuilder } from "./support/image-builder.ts";
import { machineOf } from "./support/machines.ts";
import { waitFor } from "./support/wait.ts";

const fixture = Fixture.use();
const perl = (script: string): string[] => ["perl", "-e", script];
const config = (...argv: string[]): string => `
  image   = "perl:latest"
  command = ${JSON.stringify(argv[0])}
  args    = ${JSON.stringify(argv.slice(1))}
`;

/** 400 times 400. The kernel's default for a VM of this size is 100,000. */
const watchEverything = `
  $| = 1;
  my @events = map { syscall(290, 0, 0) } 1 .. 400;
  my $count = 0;
  EPOLL: for (1 .. 400) {
    my $epoll = syscall(291, 0);
    for my $event (@events) {
      syscall(233, $epoll, 1, $event, my $what = pack("LQ", 1, 0)) == 0 or last EPOLL;
      $count++;
    }
  }
  print "holds $count\\n";
  sleep 1000;
`;

/** A socket in its own queue, with the task's standard output: no process has it open, yet it stays open. */
const hideTheEnd = `
  $| = 1;
  socketpair(my $first, my $second, 1, 1, 0) or die;
  my $byte = "x";
  my $content = pack("P Q", $byte, 1);
  my $rights = pack("Q l l l l", 24, 1, 1, fileno($second), 1);
  my $message = pack("Q L x4 P Q P Q L x4", 0, 0, $content, 1, $rights, length $rights, 0);
  syscall(46, fileno($first), $message, 0) == 1 or die "sendmsg: $!";
  close($first);
  print "last words\\n";
  syscall(231, 5);
`;

const lease = `
  $| = 1;
  $SIG{IO} = "IGNORE";
  open(my $hosts, "+<", "/etc/hosts") or die;
  print fcntl($hosts, 1024, 1) ? "has" : "has no", " lease\\n";
  sleep 1000;
`;

describe("a task that attacks its VM's init", { skip: skipVms }, () => {
  let allocation: Allocation;
  before(async () => {
    await fixture.ready();
    await using images = await ImageBuilder.create();
    const source = await images.create("perl");
    await images.addLayer("perl", { fill: copyPrograms(["perl"]), at: "/" });
    await fixture.registry.push({ source, name: "library/perl:latest" });
    allocation = await runService({ agent: fixture.agent, config: config("sleep", "1d"), memoryMib: 512 });
  });

  async function isAlive(): Promise<void> {
    const { exitCode, stdout, stderr } = await allocation.exec(["echo", "alive"], { timeoutMs: 20_000 });
    assert.deepEqual({ exitCode, stdout }, { exitCode: 0, stdout: "alive\n" }, stderr);
  }

  it("by all the epoll watches that the kernel allows: sessions go on", async () => {
    await using watcher = await ExecSession.open({ allocation, argv: perl(watchEverything) });
    await watcher.waitForStdout(/holds \d+\n/, 60_000);
    await isAlive();
    assert.match(watcher.stdout, /holds 160000\n/);
  });

  it("by a lease on /etc/hosts: the names of its peers are set, and sessions go on", async () => {
    await using holder = await ExecSession.open({ allocation, argv: perl(lease) });
    await holder.waitForStdout(/lease\n/, 30_000);
    const { directory } = await machineOf(allocation);
    const { vsockPath } = JSON.parse(await readFile(join(directory, "machine.json"), "utf8")) as { vsockPath: string };
    using guest = new GuestClient({ vsockPath });
    await guest.setPeers({ peers: [{ name: "web", address: Buffer.from([169, 254, 1, 1]) }] });
    await isAlive();
    const { stdout } = await allocation.exec(["cat", "/etc/hosts"]);
    assert.match(stdout, /^169\.254\.1\.1\tweb\t/m);
  });

  it("by a thousand processes beside a session: its tree ends with its client", async () => {
    const crowd = perl("for (1 .. 1100) { if (!fork) { sleep 1000; exit } } $| = 1; print qq(up\\n); sleep 1000");
    await using beside = await ExecSession.open({ allocation, argv: crowd });
    await beside.waitForStdout(/up/, 60_000);
    const session = await ExecSession.open({ allocation, argv: ["sh", "-c", "sleep 4324 & echo up; sleep 4324; :"] });
    await session.waitForStdout(/up/);
    session.vanish();
    await waitFor({
      what: "the tree to end",
      timeoutMs: 30_000,
      attempt: async () => {
        const { stdout } = await allocation.exec(["ps", "-o", "args"]);
        return !/^sleep 4324/m.test(stdout) || undefined;
      },
    });
  });

  it("by a standard output that never closes: its end is reported, after its last words", async () => {
    const hidden = await runJob({ agent: fixture.agent, config: config(...perl(hideTheEnd)) });
    assert.equal((await hidden.exit()).exitCode, 5);
    await hidden.waitForLog(/^last words$/m);
  });
});
