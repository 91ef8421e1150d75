import assert from "node:assert/strict";
import { mkdir, mkdtemp, readlink, rm, stat, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { openBeneath } from "../../system/host-file.ts";
import type { VmConfig } from "../vmm.ts";
import { hasInterpreter, isStatic } from "./is-static.ts";
import { Jail, type JailPrograms } from "./jail.ts";

const isRoot = process.getuid?.() === 0;

async function fixture(): Promise<{ config: VmConfig; programs: JailPrograms; jail: Jail } & AsyncDisposable> {
  const base = await mkdtemp(join(tmpdir(), "jail-"));
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
  };
  const programs = { firecrackerPath: "/opt/firecracker-v1.16.1-x86_64", jailerPath: "/opt/jailer" };
  const jail = new Jail({ config, programs, user: { uid: 70_001, gid: 70_001 } });
  return { config, programs, jail, [Symbol.asyncDispose]: () => rm(base, { recursive: true }) };
}

describe("the jail", () => {
  it("shows shared files read-only and the VM's own disk writable", async () => {
    await using setup = await fixture();
    const { config, jail } = setup;
    const root = join(config.directory, "jail/firecracker-v1.16.1-x86_64/0123abcd/root");
    assert.equal(jail.root, root);
    assert.deepEqual(
      jail.binds().map(({ target, readOnly }) => [target.slice(root.length), readOnly]),
      [
        ["/vmlinux", true],
        ["/initramfs", true],
        ["/drive0", true],
        ["/drive1", false],
      ],
    );
    assert.equal(jail.inside(config.spec.vmlinuxPath), "/vmlinux");
    assert.equal(jail.inside(join(config.directory, "v.sock")), "/v.sock");
  });

  it("passes user and limits to the jailer", async () => {
    await using setup = await fixture();
    const argv = setup.jail.argv(join(setup.config.directory, "api.sock")).join(" ");
    for (const part of ["--uid 70001 --gid 70001", "no-file=2048", `fsize=${8 << 20}`, "-- --api-sock /api.sock"]) {
      assert.ok(argv.includes(part), `${part} in ${argv}`);
    }
  });

  it("refuses a shared file that the VM's user can't read", { skip: !isRoot && "needs root" }, async () => {
    await using setup = await fixture();
    const path = setup.config.spec.vmlinuxPath;
    await rm(path);
    await writeFile(path, "", { mode: 0o600 });
    await assert.rejects(setup.jail.prepare({ sockets: [] }), { code: "jail", message: /may not read .*chmod o\+r/ });
  });

  it("refuses a disk of the host that its own owner can't write", { skip: !isRoot && "needs root" }, async () => {
    await using setup = await fixture();
    const { config, programs } = setup;
    const path = join(config.directory, "../host-disk");
    await writeFile(path, "", { mode: 0o400 });
    await using file = await openBeneath({ path, roots: [path] });
    const user = { uid: 70_001, gid: 70_001 };
    const drives = [{ path: join(config.directory, "host-drive0"), readOnly: false, id: "data", file }];
    const jail = new Jail({ config: { ...config, drives, user }, programs, user });
    await assert.rejects(jail.prepare({ sockets: [] }), { code: "jail", message: /owner of .* chmod u\+rw/ });
  });

  it("shows a disk of the host as the VM's, and leaves the disk alone", { skip: !isRoot && "needs root" }, async () => {
    await using setup = await fixture();
    const { config, programs } = setup;
    const path = join(config.directory, "../host-disk");
    await writeFile(path, "", { mode: 0o600 });
    const user = { uid: 70_001, gid: 70_001 };
    await using file = await openBeneath({ path, roots: [path] });
    const place = join(config.directory, "host-drive0");
    const drives = [...config.drives, { path: place, readOnly: false, id: "data", file }];
    const jail = new Jail({ config: { ...config, drives, user }, programs, user });
    assert.deepEqual(jail.drives(), [{ file, target: join(jail.root, "drive2"), readOnly: false, user }]);
    assert.ok(jail.binds().every(({ target }) => target !== join(jail.root, "drive2")));
    await jail.prepare({ sockets: [] });
    assert.equal((await stat(path)).uid, 0);
    assert.equal((await stat(join(jail.root, "drive2"))).size, 0);
  });

  it("is reached through links, and sealed once the sockets are there", { skip: !isRoot && "needs root" }, async () => {
    await using setup = await fixture();
    const { config, jail } = setup;
    const socket = join(config.directory, "v.sock");
    await jail.prepare({ sockets: [socket] });
    assert.equal(await readlink(socket), `jail/firecracker-v1.16.1-x86_64/0123abcd/root/v.sock`);
    assert.equal((await stat(config.drives[1]?.path ?? "")).uid, 70_001);
    await writeFile(join(jail.root, "v.sock"), "");
    await assert.rejects(jail.seal([socket]), /is not a socket/);
    await rm(join(jail.root, "v.sock"));
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(join(jail.root, "v.sock"), resolve));
    await jail.seal([socket]);
    const facts = await stat(jail.root);
    assert.deepEqual([facts.uid, facts.mode & 0o777], [0, 0o755]);
    server.close();
  });
});

describe("static programs", () => {
  it("are distinguished from those that need a loader", async () => {
    assert.equal(await isStatic(process.execPath), false);
    assert.equal(hasInterpreter(Buffer.from("#!/bin/sh\n")), false);
    assert.equal(hasInterpreter(Buffer.alloc(64)), false);
  });
});
