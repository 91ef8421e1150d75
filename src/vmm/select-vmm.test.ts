import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { UnusableVmmError, VmmMissingError } from "./errors.ts";
import { type ProbeOutcome, probeAnswer } from "./probe-kvm.ts";
import { type SelectedVmm, type SelectVmmOptions, selectVmm } from "./select-vmm.ts";
import { isolationOf } from "./vmm.ts";

const answered: ProbeOutcome = { ended: true, elapsedMs: 900, console: `${probeAnswer}\n`, seccomp: true };
const silent: ProbeOutcome = { ended: false, elapsedMs: 30_400, console: "", seccomp: true };

let directory = "";
let caches = 0;
const here = (name: string): string => join(directory, name);

async function writeProgram(name: string, output: string): Promise<void> {
  await writeFile(here(name), `#!/bin/sh\necho '${output}'\n`, { mode: 0o755 });
}

before(async () => {
  directory = await mkdtemp(join(tmpdir(), "select-"));
  await writeProgram("firecracker", "Firecracker v1.16.1");
  await writeFile(here("broken"), "#!/bin/sh\nexit 1\n", { mode: 0o755 });
  await writeProgram("newer", "Firecracker v1.99.0");
  await writeProgram("qemu", "QEMU emulator version 7.2.22");
  await mkdir(here("module"));
  await writeFile(here("kvm"), "");
  await writeFile(here("cpuinfo"), "flags\t\t: fpu svm lm\n");
  await writeFile(here("boot_id"), "first\n");
  // No program of this machine counts.
  process.env["PATH"] = here("module");
});
after(() => rm(directory, { recursive: true }));

/** Undefined: not on PATH either. */
const noFirecracker = { firecrackerPath: undefined };

/** A host with both programs and a working KVM, except for the changes. */
async function select(
  changes: Partial<SelectVmmOptions> & { kvm?: string; probe?: ProbeOutcome } = {},
): Promise<SelectedVmm> {
  const { kvm = "kvm", probe = answered, ...options } = changes;
  const cacheDirectory = here(`cache${++caches}`);
  await mkdir(cacheDirectory);
  return await selectVmm({
    choice: "auto",
    firecrackerPath: here("firecracker"),
    jailer: undefined,
    qemuPath: here("qemu"),
    vhostDeviceVsockPath: here("vhost-device-vsock"),
    runProbe: async () => probe,
    subjects: [],
    cacheDirectory,
    paths: {
      device: here(kvm),
      modules: here("module"),
      cpuinfo: here("cpuinfo"),
      bootId: here("boot_id"),
    },
    ...options,
  });
}

const facts = ({ vmm, reason }: SelectedVmm): string[] => [vmm.kind, vmm.acceleration, reason];

describe('vmm = "auto"', () => {
  it("Firecracker, where it is installed and KVM ran a guest; without a jail that is told", async () => {
    const selected = await select();
    assert.deepEqual(facts(selected), ["firecracker", "kvm", "Firecracker is installed and KVM runs guests"]);
    assert.match(selected.warnings.join(), /^VMs are NOT JAILED/);
  });

  it("a Firecracker that is newer than any tested is taken, with a warning", async () => {
    const { warnings } = await select({ firecrackerPath: here("newer") });
    assert.match(warnings.join(), /Firecracker 1\.99\.0 is newer than the newest/);
  });

  it("never QEMU, where Firecracker is installed: the reason and both cures", async () => {
    const cure = /"auto" takes nothing else: cure this, or set vmm = "qemu"/;
    for (const [changes, why] of [
      [{ probe: silent }, /KVM runs no guest here: a guest did not end within 30 s/],
      [{ kvm: "none" }, /there is no \/dev\/kvm/],
      [{ jailer: { path: undefined } }, /dynamically linked|no jailer/],
      [{ firecrackerPath: here("none") }, /none\) can't be run/],
      [{ firecrackerPath: here("broken") }, /broken\) can't be run/],
    ] as const) {
      await assert.rejects(
        select(changes),
        (error) => error instanceof UnusableVmmError && cure.test(error.message) && why.test(error.message),
      );
    }
  });

  it("QEMU by KVM, if no Firecracker is installed", async () => {
    const selected = await select(noFirecracker);
    const reason = "QEMU stands in for Firecracker: no Firecracker is installed; KVM runs guests";
    assert.deepEqual(facts(selected), ["qemu", "kvm", reason]);
    assert.match(selected.warnings.join(), /install Firecracker/);
  });

  it("QEMU by emulation, if there is no KVM either, with a warning", async () => {
    const selected = await select({ ...noFirecracker, kvm: "none" });
    const reason =
      "QEMU stands in for Firecracker: no Firecracker is installed; guests are emulated in software (there is no /dev/kvm)";
    assert.deepEqual(facts(selected), ["qemu", "emulation", reason]);
    assert.match(selected.warnings.join(), /NOT ISOLATED BY HARDWARE/);
  });

  it("neither: what to install", async () => {
    await assert.rejects(
      select({ ...noFirecracker, qemuPath: here("none") }),
      (error) => error instanceof UnusableVmmError && /install Firecracker .* or qemu-system-x86/.test(error.message),
    );
  });
});

describe("the isolation of a host's VMs", () => {
  it("one word for each kind", async () => {
    const jailer = { path: undefined };
    const words = [
      await select(),
      await select({ choice: "qemu" }),
      await select({ choice: "qemu", jailer }),
      await select({ choice: "qemu", jailer, kvm: "none" }),
    ].map(({ vmm }) => isolationOf(vmm));
    assert.deepEqual(words, ["firecracker-unjailed", "qemu-kvm-unjailed", "qemu-kvm-jailed", "qemu-emulated-jailed"]);
  });
});

describe("a VMM that the plugin's config names", () => {
  it("Firecracker, or nothing", async () => {
    assert.deepEqual(facts(await select({ choice: "firecracker" })), [
      "firecracker",
      "kvm",
      'set by the plugin config (vmm = "firecracker")',
    ]);
    await assert.rejects(select({ choice: "firecracker", kvm: "none" }), /there is no \/dev\/kvm/);
    await assert.rejects(select({ choice: "firecracker", firecrackerPath: here("none") }), VmmMissingError);
  });

  it("QEMU, although there is Firecracker", async () => {
    const selected = await select({ choice: "qemu" });
    assert.deepEqual(facts(selected), ["qemu", "kvm", 'set by the plugin config (vmm = "qemu"); KVM runs guests']);
    assert.match(selected.warnings.join(), /NOT JAILED.*breaks out of QEMU/);
    await assert.rejects(select({ choice: "qemu", qemuPath: here("none") }), VmmMissingError);
  });
});
