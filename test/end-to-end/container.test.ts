// The task's process as docker runs it, by the options of Nomad's docker driver, and exec processes in the same world.
// Expectations that come from docker are the output of `docker run` for the same thing.
import assert from "node:assert/strict";
import { before, describe, it } from "node:test";
import { type Allocation, runJob, runService } from "./support/allocation.ts";
import { skipVms } from "./support/environment.ts";
import { Fixture } from "./support/fixture.ts";
import { type World, worldsOf, worldTask } from "./support/world.ts";

const fixture = Fixture.use();
const image = 'image = "busybox:latest"';

/** Each of the lines must be there, whole. */
function hasLines(world: World, section: string, lines: readonly string[]): void {
  const found = (world.get(section) ?? "").split("\n");
  for (const line of lines) assert.ok(found.includes(line), `${section} lacks ${line}:\n${found.join("\n")}`);
}

/** Names of the zombies, after a process has been orphaned to the first process. */
async function zombies(allocation: Allocation): Promise<string> {
  const line =
    "(sleep 0.1 & ); sleep 0.5; cat /proc/[0-9]*/status 2>/dev/null | sed -n '/^Name/h; /^State:.Z/{g; s/.*\\t//; p}'";
  const { stdout, stderr, exitCode } = await allocation.exec(["/bin/sh", "-c", line]);
  assert.equal(exitCode, 0, stderr);
  return stdout;
}

describe("a task without options", { skip: skipVms }, () => {
  let allocation: Allocation;
  let world: World;
  let execWorld: World;
  before(async () => {
    await fixture.ready();
    allocation = await runService({ agent: fixture.agent, config: `${image}\n${worldTask()}` });
    ({ task: world, exec: execWorld } = await worldsOf(allocation));
  });

  it("exec is in the same world", () => assert.deepEqual(execWorld, world));

  it("user, directory, umask, limits", () => {
    assert.equal(world.get("id"), "uid=0(root) gid=0(root) groups=0(root)\n");
    assert.equal(world.get("pwd"), "/\n");
    assert.equal(world.get("umask"), "0022\n");
    hasLines(world, "limits", ["open files 1024 524288 files ", "processes unlimited unlimited processes "]);
  });

  it("environment: PATH, HOME, HOSTNAME, Nomad's", () => {
    const hostname = world.get("hostname")?.trim();
    hasLines(world, "env", [
      "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
      "HOME=/root",
      `HOSTNAME=${hostname}`,
      "NOMAD_ALLOC_DIR=/alloc",
      `NOMAD_ALLOC_ID=${allocation.id}`,
      "NOMAD_SECRETS_DIR=/secrets",
      "NOMAD_TASK_DIR=/local",
      "NOMAD_TASK_NAME=main",
    ]);
    assert.doesNotMatch(world.get("env") ?? "", /^TERM=/m);
  });

  it("docker's capabilities", () => {
    hasLines(world, "capabilities", [
      "CapInh: 0000000000000000",
      "CapPrm: 00000000a80425fb",
      "CapEff: 00000000a80425fb",
      "CapBnd: 00000000a80425fb",
      "CapAmb: 0000000000000000",
      "NoNewPrivs: 0",
    ]);
  });

  it("docker's mounts, masked and read-only paths", () => {
    hasLines(world, "mounts", [
      "/ overlay rw,relatime,layers",
      "/proc proc rw,nosuid,nodev,noexec,relatime",
      "/dev tmpfs rw,nosuid,size=65536k,mode=755",
      "/dev/pts devpts rw,nosuid,noexec,relatime,gid=5,mode=620,ptmxmode=666",
      "/dev/shm tmpfs rw,nosuid,nodev,noexec,relatime,size=65536k",
      "/dev/mqueue mqueue rw,nosuid,nodev,noexec,relatime",
      "/sys sysfs ro,nosuid,nodev,noexec,relatime",
      "/sys/fs/cgroup cgroup2 ro,nosuid,nodev,noexec,relatime",
      "/proc/bus proc ro,nosuid,nodev,noexec,relatime",
      "/proc/fs proc ro,nosuid,nodev,noexec,relatime",
      "/proc/irq proc ro,nosuid,nodev,noexec,relatime",
      "/proc/sys proc ro,nosuid,nodev,noexec,relatime",
      "/proc/sysrq-trigger proc ro,nosuid,nodev,noexec,relatime",
      "/proc/kcore tmpfs rw,nosuid,size=65536k,mode=755",
      "/proc/timer_list tmpfs rw,nosuid,size=65536k,mode=755",
      "/sys/firmware tmpfs ro,nosuid,nodev,noexec,relatime,size=0k",
    ]);
  });

  it("docker's /dev, nothing more", () => {
    assert.equal(
      world.get("dev"),
      `total 0
lrwxrwxrwx 1 root root 11 core -> /proc/kcore
lrwxrwxrwx 1 root root 13 fd -> /proc/self/fd
crw-rw-rw- 1 root root 1, 7 full
drwxrwxrwt 2 root root 40 mqueue
crw-rw-rw- 1 root root 1, 3 null
lrwxrwxrwx 1 root root 8 ptmx -> pts/ptmx
drwxr-xr-x 2 root root 0 pts
crw-rw-rw- 1 root root 1, 8 random
drwxrwxrwt 2 root root 40 shm
lrwxrwxrwx 1 root root 15 stderr -> /proc/self/fd/2
lrwxrwxrwx 1 root root 15 stdin -> /proc/self/fd/0
lrwxrwxrwx 1 root root 15 stdout -> /proc/self/fd/1
crw-rw-rw- 1 root root 5, 0 tty
crw-rw-rw- 1 root root 1, 9 urandom
crw-rw-rw- 1 root root 1, 5 zero
`,
    );
  });

  it("without init the task's process must reap, as in docker", async () => {
    assert.equal(await zombies(allocation), "sleep\n");
  });

  it("the kernel of an idle VM seldom wakes", async () => {
    const settings = ["/proc/sys/vm/compaction_proactiveness", "/proc/sys/vm/stat_interval"];
    const { stdout, stderr } = await allocation.exec(["cat", ...settings]);
    assert.deepEqual([stdout, stderr], ["0\n10\n", ""]);
  });

  it("hosts has the host name, the cgroup ends in .scope", () => {
    assert.match(world.get("hosts") ?? "", new RegExp(`\\s${world.get("hostname")?.trim()}$`, "m"));
    assert.match(world.get("cgroup") ?? "", /\.scope$/m);
  });
});

describe("a task with every option of docker's driver", { skip: skipVms }, () => {
  let world: World;
  let execWorld: World;
  let after = "";
  before(async () => {
    await fixture.ready();
    const allocation = await runService({
      agent: fixture.agent,
      group: 'network {\ndns {\nservers = ["192.0.2.53"]\nsearches = ["svc.example"]\noptions = ["ndots:2"]\n}\n}',
      task: 'user = "www-data"\nenv {\nJOB = "job"\nBOTH = "job"\nHOME = ""\n}',
      config: `
        ${image}
        ${worldTask(`
          echo after
          touch /x 2>&1; touch /var/www/x 2>&1; touch /local/y && echo local
          touch /alloc/y && echo alloc; touch /dev/shm/y && echo shm && rm /dev/shm/y; touch /scratch/y && echo scratch
          touch /frozen/y 2>&1; cp /bin/busybox /scratch/b; /scratch/b true 2>&1; touch /run/me/y && echo run
          for d in /scratch /frozen /run/me; do ls -ld $d | cut -c1-10; done; df -k /scratch | tail -1 | awk '{print $2}'
          ls -l /dev/own/kernel | cut -c1-10; echo gateway $(ip route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p')
          cat /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)/pids.max
        `)}
        env             = { BOTH = "config", EMPTY = "" }
        work_dir        = "/not/there/yet"
        hostname        = "box.example"
        extra_hosts     = ["db.example:10.0.0.5", "six.example:[2001:db8::6]", "host.docker.internal:host-gateway"]
        dns_servers     = ["198.51.100.1"]
        group_add       = ["nogroup", "777"]
        cap_drop        = ["all"]
        cap_add         = ["CAP_NET_ADMIN", "kill"]
        security_opt    = ["no-new-privileges", "seccomp=unconfined"]
        readonly_rootfs = true
        shm_size        = 1048576
        tmpfs           = ["/run/me:uid=33,mode=700"]
        pids_limit      = 77
        devices         = [{ host_path = "/dev/kmsg", container_path = "/dev/own/kernel" }]
        oom_score_adj   = 321
        ulimit {
          nofile  = "2048:4096"
          nproc   = 500
          memlock = "-1"
        }
        sysctl = {
          "net.core.somaxconn" = "1234"
          "kernel.msgmax"      = 65536
        }
        mount {
          type   = "tmpfs"
          target = "/scratch"
          tmpfs_options {
            size = 2097152
            mode = 511
          }
        }
        mounts = [{ type = "tmpfs", target = "/frozen", readonly = true }]
      `,
    });
    await allocation.waitForLog(/^77$/m);
    ({ task: world, exec: execWorld } = await worldsOf(allocation));
    after = /^after\n([\s\S]*)/m.exec(world.get("end") ?? "")?.[1] ?? "";
  });

  it("exec is in the same world", () => {
    assert.deepEqual(new Map([...execWorld, ["end", ""]]), new Map([...world, ["end", ""]]));
  });

  it("user and groups", () => {
    assert.match(world.get("id") ?? "", /^uid=33\(www-data\) gid=33\(www-data\)/);
    assert.equal(world.get("groups")?.trim(), "33 777 65534");
  });

  it("environment: image < Nomad < task; an empty HOME counts as unset", () => {
    hasLines(world, "env", ["JOB=job", "BOTH=config", "EMPTY=", "HOME=/var/www", "HOSTNAME=box.example"]);
  });

  it("work_dir is created", () => assert.equal(world.get("pwd"), "/not/there/yet\n"));

  it("limits, adjustment, capabilities", () => {
    hasLines(world, "limits", [
      "open files 2048 4096 files ",
      "processes 500 500 processes ",
      "locked memory unlimited unlimited bytes ",
    ]);
    assert.equal(world.get("adjustment"), "321\n");
    // The user is not root: the capabilities only bound what a program may gain.
    hasLines(world, "capabilities", ["CapEff: 0000000000000000", "CapBnd: 0000000000001020", "NoNewPrivs: 1"]);
  });

  it("host name, extra_hosts, sysctl", () => {
    assert.equal(world.get("hostname"), "box.example\n");
    hasLines(world, "hosts", ["10.0.0.5\tdb.example", "2001:db8::6\tsix.example"]);
    const [, gateway] = /^gateway (.+)$/m.exec(after) ?? [];
    hasLines(world, "hosts", [`${gateway}\thost.docker.internal`]);
    assert.equal(world.get("sysctl"), "1234\n65536\n");
  });

  it("the job's dns block before the task's dns_servers, as docker's driver", () => {
    assert.equal(world.get("resolv"), "nameserver 192.0.2.53\nsearch svc.example\noptions ndots:2\n");
  });

  it("readonly_rootfs, but not Nomad's directories, /dev/shm and tmpfs mounts", () => {
    hasLines(world, "mounts", [
      "/ overlay ro,relatime,layers",
      "/dev/shm tmpfs rw,nosuid,nodev,noexec,relatime,size=1024k",
    ]);
    assert.equal(
      after.replace(/^gateway .*\n/m, ""),
      `touch: /x: Read-only file system
touch: /var/www/x: Read-only file system
local
alloc
shm
scratch
touch: /frozen/y: Read-only file system
/bin/sh: /scratch/b: Permission denied
run
drwxrwxrwx
drwxrwxrwt
drwx------
2048
crw-r--r--
77
`,
    );
  });
});

describe("privileged, with a terminal and an init", { skip: skipVms }, () => {
  it("all capabilities, nothing masked, every device; a zombie is reaped, signals arrive, the exit code is the program's", async () => {
    const line = [
      'trap "echo got; exit 42" USR1',
      "grep CapEff /proc/self/status",
      "readlink /proc/1/exe; tty; ls -l /dev/console | cut -c1-10; echo term $TERM",
      "ls -d /dev/kmsg; ls -d /dev/vda; grep -c ' /proc/' /proc/mounts; echo 5000 > /proc/sys/net/core/somaxconn && echo wrote",
      "echo ready; while :; do sleep 0.1; done",
    ].join("; ");
    const allocation = await runService({
      agent: fixture.agent,
      type: "batch",
      config: `${image}\nprivileged = true\ntty = true\ninit = true\ncommand = "/bin/sh"\nargs = ["-c", ${JSON.stringify(line)}]`,
    });
    await allocation.waitForLog(/^ready/m);
    assert.equal(await zombies(allocation), "");
    await fixture.agent.nomad(["alloc", "signal", "-s", "SIGUSR1", allocation.id]);
    assert.deepEqual(await allocation.exit(), { exitCode: 42, signal: 0 });
    await allocation.waitForLog(/^got/m);
    const log = await allocation.log();
    const effective = BigInt(`0x${/CapEff:\s+([0-9a-f]+)/.exec(log)?.[1] ?? "0"}`);
    assert.ok(effective >= 0x3fffffffffn, log);
    assert.equal(
      log.replace(/^.*CapEff.*\r\n/m, ""),
      [
        "/init",
        "/dev/pts/0",
        "crw--w----",
        "term xterm",
        "/dev/kmsg",
        "/dev/vda",
        "0",
        "wrote",
        "ready",
        "got",
        "",
      ].join("\r\n"),
    );
  });
});

describe("an impossible option fails the start with a message that names it", { skip: skipVms, concurrency: 2 }, () => {
  for (const [config, task, says] of [
    ['sysctl = { "net.core.nothing" = "1" }', "", /sysctl "net\/core\/nothing" = "1": no such file/],
    ['ulimit = { nofile = "99999999999" }', "", /ulimit nofile = 99999999999:99999999999: operation not permitted/],
    ["", 'user = "nobody-here"', /unable to find user nobody-here: no matching entries in passwd file/],
    ['group_add = ["no-such"]', "", /unable to find group no-such: no matching entries in group file/],
    ['devices = [{ host_path = "/dev/dri" }]', "", /giving the task \/dev\/dri of its VM: no such file/],
    ['work_dir = "/etc/passwd"', "", /\/etc\/passwd.*not a directory/],
  ] as const) {
    it(config === "" ? task : config, async () => {
      const allocation = await runJob({
        agent: fixture.agent,
        task,
        config: `${image}\ncommand = "true"\n${config}`,
      });
      assert.equal(await allocation.status(), "failed");
      assert.match(await allocation.eventText(), says);
    });
  }
});
