import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { FirecrackerVmm } from "./firecracker/firecracker-vmm.ts";
import { inspectKvm, type KvmPaths, type KvmVerdict, type ProbeOutcome, probeAnswer, probeKvm } from "./probe-kvm.ts";

const vmm = new FirecrackerVmm({ firecrackerPath: "/opt/firecracker", jailerPath: "/opt/jailer", version: "1.16.1" });
const answered: ProbeOutcome = { ended: true, elapsedMs: 30_400, console: `${probeAnswer}\n`, seccomp: true };

let directory = "";
let paths: KvmPaths;

before(async () => {
  directory = await mkdtemp(join(tmpdir(), "kvm-"));
  paths = {
    device: join(directory, "kvm"),
    modules: join(directory, "module"),
    cpuinfo: join(directory, "cpuinfo"),
    bootId: join(directory, "boot_id"),
  };
  await mkdir(paths.modules);
  await writeFile(paths.device, "");
  await writeFile(paths.cpuinfo, "processor\t: 0\nflags\t\t: fpu svm lm\n");
  await writeFile(paths.bootId, "first\n");
});

after(() => rm(directory, { recursive: true }));

describe("the facts about a host's KVM", () => {
  it("is enough to try a guest", async () => assert.deepEqual(await inspectKvm(paths), { usable: true }));

  it("no device", async () => {
    const seen = await inspectKvm({ ...paths, device: join(directory, "none") });
    assert.deepEqual(seen, { usable: false, reason: "there is no /dev/kvm" });
  });

  it("a device that can't be opened", async () => {
    // Root passes any mode: a link to itself is refused to everybody.
    const device = join(directory, "closed");
    await symlink(device, device);
    const seen = await inspectKvm({ ...paths, device });
    assert.deepEqual(seen, { usable: false, reason: "/dev/kvm may not be opened by this user (ELOOP)" });
  });

  it("a paravirtual kind", async () => {
    const modules = join(directory, "paravirtual");
    await mkdir(join(modules, "kvm_pvm"), { recursive: true });
    const seen = await inspectKvm({ ...paths, modules });
    assert.ok(!seen.usable && seen.reason.includes("paravirtual kind (kvm_pvm)"));
  });

  it("nested virtualisation is off", async () => {
    const cpuinfo = join(directory, "no-svm");
    await writeFile(cpuinfo, "processor\t: 0\nflags\t\t: fpu lm svm_lock\n");
    const seen = await inspectKvm({ ...paths, cpuinfo });
    assert.ok(!seen.usable && seen.reason.includes("nested virtualisation is off"));
  });
});

describe("the guest that proves it", () => {
  let runs = 0;
  let caches = 0;

  const probe = async (
    outcome: ProbeOutcome | Error,
    changes: { cachePath?: string; kernel?: string } = {},
  ): Promise<KvmVerdict> =>
    await probeKvm({
      vmm,
      run: async () => {
        runs++;
        if (outcome instanceof Error) throw outcome;
        return outcome;
      },
      subjects: [changes.kernel ?? "vmlinux-1"],
      cachePath: changes.cachePath ?? join(directory, `verdict-${caches++}`),
      paths,
    });

  it("ran: that holds until the host's next boot, for this kernel", async () => {
    const cachePath = join(directory, "verdict");
    runs = 0;
    for (let time = 0; time < 2; time++) {
      assert.deepEqual(await probe(answered, { cachePath }), { usable: true, seccomp: true });
    }
    assert.equal(runs, 1);
    await probe(answered, { cachePath, kernel: "vmlinux-2" });
    assert.equal(runs, 2);
    await writeFile(paths.bootId, "second\n");
    await probe(answered, { cachePath, kernel: "vmlinux-2" });
    assert.equal(runs, 3);
    await writeFile(cachePath, "{");
    await probe(answered, { cachePath, kernel: "vmlinux-2" });
    assert.equal(runs, 4);
  });

  it("did not end", async () => {
    const seen = await probe({ ended: false, elapsedMs: 30_400, console: "", seccomp: true });
    assert.deepEqual(seen, { usable: false, reason: "KVM runs no guest here: a guest did not end within 30 s" });
  });

  it("ended without its answer: the VMM's last line is reported", async () => {
    const seen = await probe({
      ended: true,
      elapsedMs: 30_400,
      console: "booting\nKVM internal error\n",
      seccomp: true,
    });
    assert.ok(!seen.usable && seen.reason.endsWith("the VMM ended without a word from its guest KVM internal error"));
  });

  it("could not be started: reported, and tried again the next time", async () => {
    const cachePath = join(directory, "not-final");
    const seen = await probe(new Error("no user is free"), { cachePath });
    assert.deepEqual(seen, { usable: false, reason: "a VM could not be started: no user is free" });
    assert.deepEqual(await probe(answered, { cachePath }), { usable: true, seccomp: true });
  });
});
