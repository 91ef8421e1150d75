// QEMU and its vsock device as an escaped guest would find them: no rights, few files, a limit on memory. They still die
// with their supervisor, and leave nothing.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { readFile, readlink, stat } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { type Allocation, runService } from "./support/allocation.ts";
import { run, runSuccessfully } from "./support/command.ts";
import { skipVms, vmm } from "./support/environment.ts";
import { Fixture } from "./support/fixture.ts";
import { records, shell } from "./support/jailed.ts";
import { machineOf, type SeenMachine, waitUntilNoMachineIsLeft } from "./support/machines.ts";
import { waitUntilGone } from "./support/processes.ts";

const directory = mkdtempSync("/var/tmp/lge2e-qemu-");
after(() => rmSync(directory, { recursive: true }));
const disk = join(directory, "disk");
writeFileSync(disk, "of the host\n".padEnd(1 << 20, "\0"), { mode: 0o600 });

const fixture = Fixture.use(
  (address) => `
    vmm = "qemu"
    registry "docker.io" { mirrors = ["http://${address}"] }
    allowed_host_paths = ["${disk}"]`,
);

const skip = skipVms || (vmm === "firecracker" && "only on QEMU");

interface Jailed {
  readonly name: string;
  readonly pid: number;
}

async function processesOf(machine: SeenMachine): Promise<Jailed[]> {
  const state = JSON.parse(await readFile(join(machine.directory, "shim.json"), "utf8")) as { processes: Jailed[] };
  return state.processes;
}

/** A shell with the process's view and user. It has more rights than the process: seccomp and no_new_privs are missing. */
async function asEscaped(pid: number, uid: string, script: string): Promise<string> {
  const place = ["--target", `${pid}`, "--mount", "--root", "--wd", "--setuid", uid, "--setgid", uid];
  const { stdout, stderr } = await run({ file: "nsenter", args: [...place, "/bin/sh", "-c", script] });
  return stdout + stderr;
}

const field = (status: string, name: string): string =>
  new RegExp(`^${name}:[ \\t]*(.*?) *$`, "m").exec(status)?.[1] ?? "";

describe("a VM in QEMU", { skip }, () => {
  let allocation: Allocation;
  let machine: SeenMachine;
  let processes: Jailed[] = [];
  let uid = "";
  let cgroups: readonly string[] = [];

  before(async () => {
    await fixture.ready();
    const config = `${shell("head -n 1 /dev/vdc; echo by the guest | dd of=/dev/vdc conv=notrunc,fsync 2>/dev/null; echo ready; sleep 1d")}
      privileged = true
      drive {
        drive_id     = "data"
        path_on_host = "${disk}"
      }`;
    allocation = await runService({ agent: fixture.agent, config });
    machine = await machineOf(allocation);
    processes = await processesOf(machine);
    const [record] = await records(fixture.agent);
    uid = `${record?.user?.uid}`;
    cgroups = record?.cgroups ?? [];
  });

  it("is told apart: attributes, and a warning where operators look", async () => {
    const { Attributes: attributes } = await fixture.agent.node();
    assert.match(attributes["driver.litegix-fc-driver.isolation"] ?? "", /^qemu-(kvm|emulated)-jailed$/);
    const info = await fixture.agent.driverInfo();
    assert.match(info?.HealthDescription ?? "", /NOT ISOLATED BY HARDWARE|VMs run in QEMU/);
  });

  it("has a user without any capability, seccomp, and namespaces of its own", async () => {
    assert.deepEqual(
      processes.map(({ name }) => name),
      ["vsock", "vmm"],
    );
    for (const { name, pid } of processes) {
      const status = await readFile(`/proc/${pid}/status`, "latin1");
      for (const set of ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]) {
        assert.equal(field(status, set), "0000000000000000", `${name} ${set}`);
      }
      assert.equal(field(status, "Uid"), [uid, uid, uid, uid].join("\t"), name);
      assert.equal(field(status, "Gid"), [uid, uid, uid, uid].join("\t"), name);
      assert.equal(field(status, "Groups"), "", name);
      assert.equal(field(status, "NoNewPrivs"), "1", name);
      assert.equal(field(status, "Seccomp"), "2", name);
      for (const space of ["mnt", "pid", "net", "ipc", "uts", "cgroup"]) {
        const link = `ns/${space}`;
        assert.notEqual(
          await readlink(`/proc/${pid}/${link}`),
          await readlink(`/proc/self/${link}`),
          `${name} ${space}`,
        );
      }
    }
  });

  it("sees nothing of the host, and can write nowhere", async () => {
    for (const { name, pid } of processes) {
      const seen = await runSuccessfully({ file: "ls", args: [`/proc/${pid}/root`] });
      assert.doesNotMatch(seen, /^(root|home|srv|proc|sys|opt|boot|mnt)$/m, name);
      await assert.rejects(stat(`/proc/${pid}/root/etc/shadow`), /ENOENT/, name);
      await assert.rejects(stat(`/proc/${pid}/root${machine.directory}/machine.json`), /ENOENT/, name);
      await assert.rejects(stat(`/proc/${pid}/root${disk}`), /ENOENT/, name);
    }
    const vmmPid = machine.vmmPid;
    const script = `cat /etc/shadow; echo x >/escaped; echo x >/usr/escaped; echo x >${machine.directory}/run/escaped
      echo x >/dev/escaped; kill -9 ${process.pid} ${machine.shimPid}; chroot / true; cat /dev/kmsg /dev/mem`;
    const said = await asEscaped(vmmPid, uid, script);
    assert.equal(
      said.match(/Read-only file system|No such file|not permitted|No such process|nonexistent/g)?.length,
      10,
      said,
    );
    // The vsock device has no shell, and its folder is sealed.
    const run = await stat(join(machine.directory, "run"));
    assert.deepEqual([run.uid, run.mode & 0o777], [0, 0o755]);
  });

  it("has a limit on memory, and stays below it", async () => {
    const groups = (await readFile(`/proc/${machine.vmmPid}/cgroup`, "latin1")).split("\n");
    const line =
      groups.find((text) => text.includes(":memory:")) ?? groups.find((text) => text.startsWith("0::")) ?? "";
    const [, controller, path] = line.split(":");
    const file =
      controller === "memory"
        ? `/sys/fs/cgroup/memory${path}/memory.limit_in_bytes`
        : `/sys/fs/cgroup${path}/memory.max`;
    const limit = Number(await readFile(file, "utf8"));
    assert.ok(limit > 512 << 20 && limit < 4 * 1024 ** 3, `${file}: ${limit}`);
  });

  it("has a drive that stays its owner's", async () => {
    await allocation.waitForLog(/^of the host\nready$/m);
    assert.match(await readFile(disk, "latin1"), /^by the guest\n/);
    const facts = await stat(disk);
    assert.deepEqual([facts.uid, facts.mode & 0o777], [0, 0o600]);
  });

  it("dies with its supervisor, and nothing is left", async () => {
    process.kill(machine.shimPid, "SIGKILL");
    // No driver has a part in this: the kernel ends them.
    for (const { pid } of processes) await waitUntilGone({ pid, timeoutMs: 5_000 });
    await allocation.stop();
    await waitUntilNoMachineIsLeft(fixture.agent);
    for (const group of cgroups) await assert.rejects(stat(group), /ENOENT/);
  });
});
