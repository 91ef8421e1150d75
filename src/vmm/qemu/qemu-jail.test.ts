import assert from "node:assert/strict";
import { chmod, mkdir, mkdtemp, rm, stat, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { JailError } from "../errors.ts";
import type { VmConfig } from "../vmm.ts";
import { QemuVmm } from "./qemu-vmm.ts";

const isRoot = process.getuid?.() === 0;
const user = { uid: 70_001, gid: 70_001 };

async function fixture(
  changes: { qemuPath?: string; acceleration?: "kvm" | "emulation" } = {},
): Promise<{ config: VmConfig; vmm: QemuVmm } & AsyncDisposable> {
  const base = await mkdtemp(join(tmpdir(), "qemu-jail-"));
  const directory = join(base, "vms/0123abcd");
  await mkdir(directory, { recursive: true });
  const file = async (name: string): Promise<string> => {
    await writeFile(join(base, name), "", { mode: 0o644 });
    return join(base, name);
  };
  const config: VmConfig = {
    id: "0123abcd",
    directory,
    spec: {
      vcpuCount: 1,
      memSizeMib: 256,
      vmlinuxPath: await file("kernel-1"),
      initramfsPath: await file("initramfs-1"),
      kernelArguments: [],
      options: {},
    },
    vsock: true,
    drives: [
      { path: await file("image"), readOnly: true },
      { path: await file("scratch"), readOnly: false, sizeBytes: 8 << 20 },
    ],
    user,
  };
  const vmm = new QemuVmm({
    qemuPath: "/usr/bin/qemu-system-x86_64",
    vhostDeviceVsockPath: "/base/bin/vhost-device-vsock",
    version: "7.2.22",
    acceleration: "kvm",
    tscKhz: 0,
    jailed: true,
    ...changes,
  });
  return { config, vmm, [Symbol.asyncDispose]: () => rm(base, { recursive: true }) };
}

describe("QEMU's jail", () => {
  it("has the files that QEMU opens, and none of the host's but the system's", async () => {
    await using setup = await fixture();
    const { config, vmm } = setup;
    const [device, qemu] = vmm.plan(config).processes;
    const run = join(config.directory, "run");
    assert.deepEqual(qemu?.confinement?.view, {
      kind: "root",
      directory: join(config.directory, "root"),
      system: true,
      readOnly: [config.spec.vmlinuxPath, config.spec.initramfsPath, run],
      writable: [],
      devices: ["/dev/kvm"],
    });
    assert.deepEqual(qemu.confinement.files, [
      { path: config.drives[0]?.path, readOnly: true, fd: 200 },
      { path: config.drives[1]?.path, readOnly: false, fd: 201 },
    ]);
    assert.ok(!qemu.argv.join(" ").includes("scratch"), "disks are known by their descriptors");
    assert.deepEqual(device?.confinement?.view, {
      kind: "root",
      directory: join(config.directory, "root"),
      system: false,
      readOnly: ["/base/bin/vhost-device-vsock"],
      writable: [run],
      devices: [],
    });
    assert.equal(device.confinement.seccomp, "vsock");
  });

  it("has a user, limits, and no KVM that it does not need", async () => {
    await using setup = await fixture({ acceleration: "emulation" });
    const [, qemu] = setup.vmm.plan(setup.config).processes;
    const { uid, gid, limits, view } = qemu?.confinement ?? {};
    assert.deepEqual({ uid, gid }, user);
    // The guest's memory is the larger file.
    assert.deepEqual(limits, { core: 0, nofile: 2048, fsize: 256 << 20 });
    assert.deepEqual(view?.kind === "root" && view.devices, []);
  });

  it("shows the folder of a QEMU that lies elsewhere", async () => {
    for (const [qemuPath, shown] of [
      ["/opt/qemu-11/bin/qemu-system-x86_64", "/opt/qemu-11"],
      ["/srv/build/qemu-system-x86_64", "/srv/build/qemu-system-x86_64"],
      ["/bin/qemu-system-x86_64", undefined],
    ] as const) {
      await using setup = await fixture({ qemuPath });
      const view = setup.vmm.plan(setup.config).processes[1]?.confinement?.view;
      const first = view?.kind === "root" ? view.readOnly[0] : undefined;
      assert.equal(first === setup.config.spec.vmlinuxPath ? undefined : first, shown);
    }
  });

  it("is refused a kernel that the VM's user can't read", { skip: !isRoot && "needs root" }, async () => {
    await using setup = await fixture();
    await chmod(setup.config.spec.vmlinuxPath, 0o600);
    await assert.rejects(setup.vmm.prepare(setup.config), JailError);
  });

  it("is sealed once the sockets are there", { skip: !isRoot && "needs root" }, async () => {
    await using setup = await fixture();
    const { config, vmm } = setup;
    await vmm.prepare(config);
    const run = join(config.directory, "run");
    const facts = await stat(run);
    assert.deepEqual([facts.uid, facts.mode & 0o777], [user.uid, 0o700]);
    const server = createServer().listen(join(run, "vu.sock"));
    await symlink("/etc/shadow", join(run, "v.sock"));
    await assert.rejects(vmm.configure({ config }), /v\.sock is not a socket/);
    server.close();
    const sealed = await stat(run);
    assert.deepEqual([sealed.uid, sealed.mode & 0o777], [0, 0o755]);
  });
});
