// The task's config block: the refusals, in the words that the job's author sees, and the effects of good settings.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Allocation, runJob, startJob } from "./support/allocation.ts";
import { skipVms } from "./support/environment.ts";
import { Fixture } from "./support/fixture.ts";
import { waitUntilNoMachineIsLeft } from "./support/machines.ts";

const fixture = Fixture.use();

interface BadCase {
  readonly title: string;
  readonly config: string;
  readonly memoryMib?: number;
  /** Key, value and rule, as far as they apply. */
  readonly says: readonly RegExp[];
}

const image = 'image = "busybox:latest"';

const badCases: readonly BadCase[] = [
  { title: "no image", config: 'command = "true"', says: [/image/, /required/] },
  { title: "an empty image", config: 'image = ""', says: [/image/, /empty/] },
  {
    title: "an invalid image name",
    config: 'image = "Busy Box"',
    says: [/Busy Box/, /image reference|lower ?case/],
  },
  { title: "an unknown key", config: `${image}\ncomand = "true"`, says: [/comand/] },
  { title: "no CPU", config: `${image}\nvpu_count = 0`, says: [/vpu_count/, /\b0\b/, /from 1 to 32/] },
  { title: "too many CPUs", config: `${image}\nvpu_count = 99`, says: [/vpu_count/, /99/, /from 1 to 32/] },
  { title: "half a CPU", config: `${image}\nvpu_count = 1.5`, says: [/vpu_count/, /1\.5/, /whole number/] },
  { title: "a word for a number", config: `${image}\nvpu_count = "two"`, says: [/vpu_count/, /two/, /whole number/] },
  { title: "two CPU counts", config: `${image}\nvpu_count = 1\nvcpu_count = 2`, says: [/vcpu_count/, /vpu_count = 1/] },
  { title: "too little memory", config: `${image}\nmem_size = 16`, says: [/mem_size/, /16/, /MiB from \d+/] },
  { title: "a list for a number", config: `${image}\nmem_size = [256]`, says: [/mem_size/, /256/, /whole number/] },
  {
    title: "too little memory in resources",
    config: image,
    memoryMib: 32,
    says: [/resources\.memory/, /32/, /at least \d+ MiB/],
  },
  { title: "a number for args", config: `${image}\nargs = [["a"]]`, says: [/args/, /list of strings/] },
  { title: "args with an open quote", config: `${image}\nargs = "-c 'echo"`, says: [/args/, /-c 'echo/, /quote/] },
  { title: "env that is neither list nor map", config: `${image}\nenv = "A"`, says: [/env/, /"A"/, /NAME=value/] },
  { title: "env without a name", config: `${image}\nenv = ["=x"]`, says: [/env/, /=x/, /NAME=value/] },
  { title: "a relative work_dir", config: `${image}\nwork_dir = "tmp"`, says: [/work_dir/, /tmp/, /absolute/] },
  {
    title: "a word for force_pull",
    config: `${image}\nforce_pull = "maybe"`,
    says: [/force_pull/, /maybe/, /true or false/],
  },
];

describe("a bad task config fails the task and says why", { skip: skipVms, concurrency: 4 }, () => {
  for (const bad of badCases) {
    it(bad.title, async () => {
      const allocation = await startJob({
        agent: fixture.agent,
        config: bad.config,
        ...(bad.memoryMib === undefined ? {} : { memoryMib: bad.memoryMib }),
      });
      assert.equal(await allocation.waitForEnd(30_000), "failed");
      const text = await allocation.eventText();
      for (const pattern of bad.says) assert.match(text, pattern);
    });
  }

  it("a command that the image does not have", async () => {
    const allocation = await runJob({ agent: fixture.agent, config: `${image}\ncommand = "/no/such/program"` });
    assert.equal(await allocation.status(), "failed");
    assert.match(await allocation.eventText(), /\/no\/such\/program/);
  });
});

describe("after tasks that could not start", { skip: skipVms }, () => {
  it("nothing is left of them", () => waitUntilNoMachineIsLeft(fixture.agent));
});

describe("a good task config", { skip: skipVms, concurrency: 2 }, () => {
  async function logOf(config: string, options: { task?: string; memoryMib?: number } = {}): Promise<string> {
    const allocation: Allocation = await runJob({ agent: fixture.agent, config: `${image}\n${config}`, ...options });
    assert.equal(await allocation.status(), "complete", await allocation.eventText());
    // The last line of each task shows that its log is whole.
    await allocation.waitForLog(/^end$/m);
    return await allocation.log();
  }

  it("args as a list; vpu_count and mem_size make the VM", async () => {
    const log = await logOf(
      `
      vpu_count = 2
      mem_size  = 300
      command   = "/bin/sh"
      args      = ["-c", "nproc; grep MemTotal /proc/meminfo; echo 'one  argument'; echo end"]
    `,
      { memoryMib: 300 },
    );
    assert.match(log, /^2$/m);
    assert.match(log, /^one {2}argument$/m);
    const memoryMib = Number(/MemTotal: +(\d+) kB/.exec(log)?.[1]) / 1024;
    assert.ok(memoryMib > 200 && memoryMib <= 300, `${memoryMib} MiB`);
  });

  it("more than one CPU use a clock, not the ticks of a timer that can't be stopped", async () => {
    const source = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    await logOf(`
      vpu_count = 2
      command   = "/bin/sh"
      args      = ["-c", "until grep -qE 'tsc|kvm-clock' ${source}; do sleep 0.1; done; echo end"]
    `);
  });

  it("args as one string is split as a shell splits; without a size the job's resources count", async () => {
    const log = await logOf(
      `command = "/bin/sh"\nargs = "-c 'grep MemTotal /proc/meminfo; echo \\"a  b\\"; echo end'"`,
      {
        memoryMib: 220,
      },
    );
    assert.match(log, /^a {2}b$/m);
    const memoryMib = Number(/MemTotal: +(\d+) kB/.exec(log)?.[1]) / 1024;
    assert.ok(memoryMib > 130 && memoryMib <= 220, `${memoryMib} MiB`);
  });

  it("env as a list, beside Nomad's own and the job's; vcpu_count", async () => {
    const log = await logOf(
      `vcpu_count = 1\nenv = ["ONE=1", "TWO=a=b", "JOB=config"]\ncommand = "/bin/sh"\nargs = ["-c", "env; nproc; echo end"]`,
      { task: 'env { JOB = "job" }' },
    );
    for (const line of ["ONE=1", "TWO=a=b", "JOB=config", "NOMAD_TASK_NAME=main"]) {
      assert.match(log, new RegExp(`^${line}$`, "m"));
    }
    assert.match(log, /^NOMAD_ALLOC_ID=[0-9a-f-]{36}$/m);
  });

  it("env as a map; work_dir; entrypoint", async () => {
    const log = await logOf(`
      env        = { ONE = "1", TWO = 2 }
      work_dir   = "/var/www"
      entrypoint = ["/bin/sh", "-c"]
      args       = ["env; pwd; echo end"]
    `);
    assert.match(log, /^ONE=1$/m);
    assert.match(log, /^TWO=2$/m);
    assert.match(log, /^\/var\/www$/m);
  });

  it("the job's user", async () => {
    const log = await logOf(`command = "/bin/sh"\nargs = ["-c", "id -un; id -u; echo end"]`, {
      task: 'user = "www-data"',
    });
    assert.match(log, /^www-data\n33$/m);
  });
});
