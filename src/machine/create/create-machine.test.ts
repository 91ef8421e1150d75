import assert from "node:assert/strict";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import type { MachineSpec } from "../../vmm/machine-spec.ts";
import type { Vmm } from "../../vmm/vmm.ts";
import type { MachineRecord } from "../records/manifest.ts";
import { VmRecords } from "../records/vm-records.ts";
import { BootTimeline } from "../timeline.ts";
import { createMachine, type MachineHost } from "./create-machine.ts";

const spec: MachineSpec = {
  vmlinuxPath: "/boot/vmlinux-1",
  initramfsPath: "/boot/initramfs-1",
  kernelArguments: [],
  vcpuCount: 2,
  memSizeMib: 128,
  options: {},
};

/** A host whose VMM only calls `prepare`. */
async function hostWith(context: TestContext, prepare: (records: VmRecords) => Promise<void>): Promise<MachineHost> {
  const directory = await mkdtemp(join(tmpdir(), "litegix-create-"));
  context.after(() => rm(directory, { recursive: true }));
  const records = new VmRecords(directory);
  const vmm: Vmm = {
    kind: "qemu",
    version: "7",
    acceleration: "emulation",
    jailed: false,
    opensTaps: false,
    overheadMib: () => 64,
    plan: (config) => ({ processes: [], vsockPath: join(config.directory, "v.sock") }),
    prepare: () => prepare(records),
    configure: async () => {},
    start: async () => {},
  };
  return {
    vmm,
    records,
    shimPath: "/bin/litegix-shim-1",
    users: { first: 1, last: 1 },
    cgroups: undefined,
    minFreeMib: 0,
  };
}

async function create(host: MachineHost, spareDisksDirectory: string) {
  return await createMachine({
    host,
    request: {
      spec,
      cpu: {},
      labels: { taskId: "t" },
      madeFor: "a test",
      workload: {
        imagePath: "/images/1.squashfs",
        scratchSizeMib: 1,
        spareDisksDirectory,
        stdoutPath: "/dev/null",
        stderrPath: "/dev/null",
        logRoot: "/",
      },
    },
    timeline: new BootTimeline(),
    signal: new AbortController().signal,
  });
}

/** A folder with the scratch disk that a VM will take. */
async function spareDisk(context: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "litegix-spare-"));
  context.after(() => rm(directory, { recursive: true }));
  await writeFile(join(directory, "1-spare"), "");
  return directory;
}

test("a VM's record names the files that it uses before the VM has processes", async (context) => {
  let seen: MachineRecord | undefined;
  const host = await hostWith(context, async (records) => {
    [seen] = await records.list();
  });
  const { record } = await create(host, await spareDisk(context));
  assert.deepEqual(seen, JSON.parse(JSON.stringify(record)));
  assert.equal(seen?.phase, "starting");
  assert.deepEqual(seen.uses, {
    image: "/images/1.squashfs",
    kernel: "/boot/vmlinux-1",
    initramfs: "/boot/initramfs-1",
    supervisor: "/bin/litegix-shim-1",
  });
});

test("a VM that can't be prepared leaves nothing, and says why", async (context) => {
  const host = await hostWith(context, async () => {
    throw new Error("no jail");
  });
  await assert.rejects(create(host, await spareDisk(context)), { code: "machine_start", message: /^no jail/ });
  assert.deepEqual(await readdir(host.records.directory), []);
});
