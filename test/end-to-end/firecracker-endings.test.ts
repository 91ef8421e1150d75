// Every way in which a jailed VM of the real Firecracker can end, each with its own code and the console's last lines,
// and nothing of it left. Without Nomad: a job can't cause these ends.
import assert from "node:assert/strict";
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, describe, it } from "node:test";
import { buildInitramfs } from "../../src/boot/initramfs.ts";
import { type BootFiles, prepareBoot } from "../../src/boot/prepare-boot.ts";
import { acquireMachine } from "../../src/machine/acquire-machine.ts";
import type { MachineHost } from "../../src/machine/create/create-machine.ts";
import type { Machine } from "../../src/machine/machine.ts";
import { VmRecords } from "../../src/machine/records/vm-records.ts";
import { BootTimeline } from "../../src/machine/timeline.ts";
import { installAsset, readAsset } from "../../src/system/assets.ts";
import { findCgroups } from "../../src/system/cgroups.ts";
import { writeFileAtomically } from "../../src/system/files.ts";
import { findFirecracker, findJailer } from "../../src/vmm/firecracker/find-firecracker.ts";
import { FirecrackerVmm } from "../../src/vmm/firecracker/firecracker-vmm.ts";
import { quietArguments } from "../../src/vmm/machine-spec.ts";
import type { LaunchPlan, VmConfig } from "../../src/vmm/vmm.ts";
import { runSuccessfully } from "./support/command.ts";
import { findFirecracker as firecrackerPath, kernelDirectory, skipFirecracker } from "./support/environment.ts";
import { leftovers } from "./support/machines.ts";
import { assertEmptyNetwork, isRunning, sharedNamespaces, waitUntilGone } from "./support/processes.ts";

const bootTimeoutMs = 60_000;
const parentCgroup = "litegix-endings";
const users = { first: 71_000, last: 71_009 };

let base = "";
/** On file systems of their own, as an operator may have them: no hard link reaches from there into a jail. */
let bootDirectory = "";
let imageDirectory = "";
let host: MachineHost;
let boot: BootFiles;
let programs: { firecrackerPath: string; jailerPath: string; version: string };

interface Spoil {
  readonly vmm?: FirecrackerVmm;
  readonly initramfsPath?: string;
  readonly kernelArguments?: readonly string[];
  readonly memSizeMib?: number;
  readonly bootTimeoutMs?: number;
}

async function acquire(spoil: Spoil = {}): Promise<Machine> {
  return await acquireMachine({
    host: { ...host, vmm: spoil.vmm ?? host.vmm },
    request: {
      spec: {
        vcpuCount: 1,
        memSizeMib: spoil.memSizeMib ?? 192,
        vmlinuxPath: boot.vmlinuxPath,
        initramfsPath: spoil.initramfsPath ?? boot.initramfsPath,
        kernelArguments: [...quietArguments, ...(spoil.kernelArguments ?? [])],
        options: {},
      },
      cpu: { shares: 100 },
      labels: {},
      madeFor: "a test",
      workload: {
        imagePath: join(imageDirectory, "image"),
        scratchSizeMib: 64,
        spareDisksDirectory: join(base, "spare"),
        stdoutPath: "/dev/null",
        stderrPath: "/dev/null",
        logRoot: "/",
      },
    },
    timeline: new BootTimeline(),
    bootTimeoutMs: spoil.bootTimeoutMs ?? bootTimeoutMs,
    signal: AbortSignal.timeout(5 * 60_000),
  });
}

async function mountFileSystem(directory: string): Promise<string> {
  await mkdir(directory);
  await runSuccessfully({ file: "mount", args: ["-t", "tmpfs", "-o", "mode=755", "litegix-endings", directory] });
  return directory;
}

async function vmmPid(machine: Machine): Promise<number> {
  const pid = await machine.vmmPid();
  assert.ok(pid !== undefined);
  return pid;
}

/** The seccomp mode of each thread, from /proc: 2 means that a filter is in force. */
async function seccompModes(pid: number): Promise<Set<string | undefined>> {
  const threads = await readdir(`/proc/${pid}/task`);
  const statuses = await Promise.all(threads.map((thread) => readFile(`/proc/${pid}/task/${thread}/status`, "utf8")));
  return new Set(statuses.map((status) => /^Seccomp:\s*(\d)$/m.exec(status)?.[1]));
}

/** No process, mount, socket, file or cgroup; every user is free again. */
async function assertNothingLeft(): Promise<void> {
  assert.deepEqual(await leftovers(host.records.directory), []);
  const mounts = Object.values(host.cgroups?.hierarchies.mounts ?? {});
  for (const mount of new Set(mounts)) {
    const names = await readdir(join(mount, parentCgroup), { withFileTypes: true }).catch(() => []);
    assert.deepEqual(
      names.filter((entry) => entry.isDirectory()).map((entry) => entry.name),
      [],
    );
  }
  for (const name of await readdir("/proc")) {
    const facts = /^\d+$/.test(name) ? await stat(`/proc/${name}`).catch(() => undefined) : undefined;
    assert.ok(facts === undefined || facts.uid < users.first || facts.uid > users.last, `process ${name} is left`);
  }
}

async function identities(paths: readonly string[]): Promise<{ dev: number; ino: number }[]> {
  const facts = await Promise.all(paths.map((path) => stat(path)));
  return facts.map(({ dev, ino }) => ({ dev, ino }));
}

async function assertFailure(spoil: Spoil, expected: { code: string; message: RegExp }): Promise<void> {
  await assert.rejects(acquire(spoil), expected);
  await assertNothingLeft();
}

describe("the end of a VM", { skip: skipFirecracker }, () => {
  before(async () => {
    base = await mkdtemp(join(tmpdir(), "lgend-"));
    const machinesDirectory = join(base, "vms");
    await mkdir(machinesDirectory);
    bootDirectory = await mountFileSystem(join(base, "boot"));
    imageDirectory = await mountFileSystem(join(base, "images"));
    const found = await findFirecracker({ path: firecrackerPath() });
    const jailerPath = await findJailer({ path: process.env["JAILER"], firecracker: found });
    programs = { firecrackerPath: found.path, jailerPath, version: found.version };
    const hierarchies = await findCgroups();
    assert.ok(hierarchies !== undefined);
    host = {
      vmm: new FirecrackerVmm(programs),
      records: new VmRecords(machinesDirectory),
      shimPath: await installAsset({ name: "litegix-shim", directory: join(base, "bin") }),
      users,
      cgroups: { hierarchies, parent: parentCgroup },
      minFreeMib: 0,
    };
    boot = await prepareBoot({
      vmlinuxPath: undefined,
      kernelsDirectory: dirname(kernelDirectory),
      cacheDirectory: bootDirectory,
      init: await readAsset("litegix-init"),
      shimPath: host.shimPath,
    });
    await writeFileAtomically({ path: join(imageDirectory, "image"), content: new Uint8Array(4096), mode: 0o644 });
  });

  after(async () => {
    for (const directory of [bootDirectory, imageDirectory]) {
      if (directory !== "") await runSuccessfully({ file: "umount", args: [directory] });
    }
    await rm(base, { recursive: true, force: true });
  });

  it("a jailed VM: its user, namespaces, limits, filters, shared files and cgroup; killed on request", async (test) => {
    const machine = await acquire();
    const pid = await vmmPid(machine);
    const status = await readFile(`/proc/${pid}/status`, "utf8");
    const uid = machine.record.user?.uid ?? 0;
    assert.ok(uid >= users.first && uid <= users.last);
    assert.match(status, new RegExp(`^Uid:\\s+${uid}\\s+${uid}\\s+${uid}\\s+${uid}$`, "m"));
    assert.match(status, new RegExp(`^Gid:\\s+${uid}\\s+${uid}\\s+${uid}\\s+${uid}$`, "m"));
    assert.match(status, /^CapEff:\s+0+$/m);
    assert.match(status, /^NSpid:\s+\d+\s+1$/m);
    const modes = await seccompModes(pid);
    assert.ok(
      modes.size === 1,
      `seccomp modes ${[...modes].join()}: of the VMM's threads some are filtered, others are not`,
    );
    if (!modes.has("2")) test.diagnostic("this build of Firecracker has no seccomp filters: they are not tested");
    assert.deepEqual(await sharedNamespaces(pid, ["net", "ipc", "uts", "cgroup", "pid", "mnt"]), []);
    await assertEmptyNetwork(pid);
    const limits = await readFile(`/proc/${pid}/limits`, "utf8");
    assert.match(limits, /^Max open files\s+2048\s+2048 /m);
    assert.match(limits, new RegExp(`^Max file size\\s+${64 << 20}\\s+${64 << 20} `, "m"));
    const cgroup = await readFile(`/proc/${pid}/cgroup`, "utf8");
    assert.match(cgroup, new RegExp(`${parentCgroup}/${machine.record.id}$`, "m"));
    const jailMounts = await readFile(`/proc/${pid}/mounts`, "utf8");
    assert.match(jailMounts, /^\S+ \/vmlinux \S+ ro,/m);
    assert.ok(!jailMounts.includes(base), "nothing of the host is mounted in the jail");
    const hostMounts = await readFile("/proc/mounts", "utf8");
    assert.ok(!hostMounts.includes(host.records.directory), "nothing of the jail is mounted on the host");
    const files = [boot.vmlinuxPath, boot.initramfsPath, join(imageDirectory, "image")];
    const shown = ["vmlinux", "initramfs", "drive0"].map((name) => `/proc/${pid}/root/${name}`);
    assert.deepEqual(await identities(shown), await identities(files), "shared files are the same file, not a copy");
    const { dev: machinesDevice } = await stat(host.records.directory);
    for (const { dev } of await identities(files)) assert.notEqual(dev, machinesDevice);
    await machine.destroy();
    assert.equal(await isRunning(pid), false);
    await assertNothingLeft();
  });

  it("two VMs have two users", async () => {
    const machines = await Promise.all([acquire(), acquire()]);
    const [one, other] = machines.map((machine) => machine.record.user?.uid);
    assert.ok(one !== undefined && other !== undefined && one !== other);
    await Promise.all(machines.map((machine) => machine.destroy()));
    await assertNothingLeft();
  });

  it("VMM killed", async () => {
    const machine = await acquire();
    process.kill(await vmmPid(machine), "SIGKILL");
    const exit = await machine.exited;
    assert.ok(exit.kind === "error");
    assert.equal(exit.code, "vmm_killed");
    assert.match(exit.reason, /signal 9 \(vmm_killed\).*last output: /);
    await machine.destroy();
    await assertNothingLeft();
  });

  it("supervisor killed: the VM ends with it", async () => {
    const machine = await acquire();
    const pid = await vmmPid(machine);
    process.kill(machine.record.shim?.pid ?? 0, "SIGKILL");
    const exit = await machine.exited;
    assert.equal(exit.kind === "error" && exit.code, "supervisor_lost");
    await waitUntilGone({ pid, timeoutMs: 5_000 });
    await machine.destroy();
    await assertNothingLeft();
  });

  it("VMM killed by the host because memory ran out", async () => {
    class Starved extends FirecrackerVmm {
      override overheadMib(memSizeMib: number): number {
        return 40 - memSizeMib;
      }
    }
    await assertFailure({ vmm: new Starved(programs) }, { code: "vmm_out_of_memory", message: /host's kernel killed/ });
  });

  it("guest panic", async () => {
    await assertFailure(
      { kernelArguments: ["rdinit=/nothing", "root=/dev/none"] },
      { code: "guest_panic", message: /panicked: \S.*\(guest_panic\).*last output: .*panic.*VMM log: /i },
    );
  });

  it("guest hang before its agent answers", async () => {
    const initramfs = buildInitramfs({ init: await readFile("/bin/busybox"), modules: [] });
    const initramfsPath = join(base, "hang.cpio");
    await writeFileAtomically({ path: initramfsPath, content: initramfs, mode: 0o644 });
    await assertFailure(
      { initramfsPath, bootTimeoutMs: 8_000 },
      { code: "guest_unreachable", message: /does not answer.*\(guest_unreachable\); last output: / },
    );
  });

  it("VMM refuses", async () => {
    await assertFailure(
      { memSizeMib: 0 },
      { code: "firecracker_api", message: /refused PUT \/machine-config: .*\(firecracker_api\)/ },
    );
  });

  it("jailer fails", async () => {
    class Lost extends FirecrackerVmm {
      override plan(config: VmConfig): LaunchPlan {
        const plan = super.plan(config);
        const [vmm] = plan.processes;
        assert.ok(vmm !== undefined);
        const [jailer, ...args] = vmm.argv;
        return { ...plan, processes: [{ ...vmm, argv: [jailer, "--netns", "/nowhere/netns", ...args] }] };
      }
    }
    await assertFailure(
      { vmm: new Lost(programs) },
      { code: "jailer_failed", message: /\(jailer_failed\).*\/nowhere\/netns/ },
    );
  });

  it("VMM fails at its start", async () => {
    // If run under a name that it does not know, busybox complains and ends.
    const path = join(base, "bin/not-firecracker");
    await copyFile("/bin/busybox", path);
    await assertFailure(
      { vmm: new FirecrackerVmm({ ...programs, firecrackerPath: path }) },
      { code: "vmm_failed", message: /\(vmm_failed\).*applet not found/ },
    );
  });

  it("API socket never appears", async () => {
    // busybox's init stays and makes no socket.
    const path = join(base, "bin/init");
    await copyFile("/bin/busybox", path);
    await assertFailure(
      { vmm: new FirecrackerVmm({ ...programs, firecrackerPath: path }) },
      { code: "api_socket_missing", message: /no API socket/ },
    );
  });
});
