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
    changes: { cachePath?: string; kernel?: string; atMs?: number } = {},
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
      now: () => changes.atMs ?? 0,
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
    assert.deepEqual(seen, {
      usable: false,
      reason: "KVM runs no guest here: a guest did not end within 30 s",
    });
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

  const failures: readonly [what: string, outcome: ProbeOutcome | Error][] = [
    ["a start that failed", new Error("no user is free")],
    ["a VMM that was killed", { ended: true, elapsedMs: 10, console: "", seccomp: true }],
    ["a guest that took too long", { ended: false, elapsedMs: 30_400, console: "", seccomp: true }],
  ];
  for (const [what, outcome] of failures) {
    it(`${what} is tried again, and a success then holds`, async () => {
      const cachePath = join(directory, `verdict-${caches++}`);
      runs = 0;
      const first = await probe(outcome, { cachePath });
      assert.equal(first.usable, false);
      assert.deepEqual(
        await probe(answered, { cachePath, atMs: 10_000 }),
        first,
        "the other plugins of one agent start",
      );
      assert.equal(runs, 1);
      assert.deepEqual(await probe(answered, { cachePath, atMs: 30_000 }), { usable: true, seccomp: true });
      assert.deepEqual(await probe(outcome, { cachePath, atMs: 1e12 }), { usable: true, seccomp: true });
      assert.equal(runs, 2);
    });
  }

  it("is tried less and less often, but at least twice an hour, and after the clock was set back", async () => {
    const cachePath = join(directory, `verdict-${caches++}`);
    const times: number[] = [];
    let atMs = 0;
    runs = 0;
    for (; atMs < 3 * 3_600_000; atMs += 30_000) {
      const before = runs;
      await probe(new Error("no"), { cachePath, atMs });
      if (runs > before) times.push(atMs);
    }
    const pauses = times.slice(1).map((time, index) => time - (times[index] ?? 0));
    assert.deepEqual(
      pauses,
      pauses.toSorted((a, b) => a - b),
    );
    assert.equal(pauses[0], 30_000);
    assert.equal(pauses.at(-1), 30 * 60_000);
    runs = 0;
    await probe(new Error("no"), { cachePath, atMs: 1000 });
    assert.equal(runs, 1);
  });

  it("is not proved to fail by a change that makes it impossible to try", async () => {
    const cachePath = join(directory, `verdict-${caches++}`);
    const device = join(directory, "gone");
    const seen = await probeKvm({
      vmm,
      run: async () => answered,
      subjects: [],
      cachePath,
      paths: { ...paths, device },
    });
    assert.deepEqual(seen, { usable: false, reason: "there is no /dev/kvm" });
    await writeFile(device, "");
    const again = await probeKvm({
      vmm,
      run: async () => answered,
      subjects: [],
      cachePath,
      paths: { ...paths, device },
    });
    assert.equal(again.usable, true);
  });
});
