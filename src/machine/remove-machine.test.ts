import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { sampleRecord } from "../../test/fakes/sample-record.ts";
import { ownIdentity } from "../system/processes.ts";
import { Machine } from "./machine.ts";
import { machineFiles } from "./records/files.ts";
import { type MachineRecord, readRecord, writeRecord } from "./records/manifest.ts";
import { VmRecords } from "./records/vm-records.ts";
import { sweepMachines } from "./remove-machine.ts";

/** No process has this number. */
const nobody = { pid: 2 ** 22 + 1, startTime: "1" };

/** Can't be removed as a cgroup. */
const noGroup = import.meta.filename;

let machinesDirectory = "";
before(async () => {
  machinesDirectory = await mkdtemp(join(tmpdir(), "litegix-store-"));
});
after(() => rm(machinesDirectory, { recursive: true }));

async function leave(id: string, facts: Partial<MachineRecord>): Promise<string> {
  const directory = join(machinesDirectory, id);
  await mkdir(directory);
  const record: MachineRecord = {
    ...sampleRecord,
    id,
    phase: "running",
    creator: nobody,
    vsockPath: join(directory, "v.sock"),
    ...facts,
  };
  await writeRecord(machineFiles(directory).record, record);
  return directory;
}

describe("VMs that an earlier process left", () => {
  it("a half-started or half-ended one is removed, a running or busy one is not", async () => {
    const alive = await ownIdentity();
    const removed = [await leave("00000001", { phase: "starting" }), await leave("00000002", { phase: "ending" })];
    await leave("00000003", { phase: "running" });
    await leave("00000004", { phase: "starting", creator: alive });
    await leave("00000005", { phase: "ending", creator: alive });
    const swept = await sweepMachines(new VmRecords(machinesDirectory));
    assert.deepEqual([swept.removed.toSorted(), swept.failed], [removed, []]);
    assert.deepEqual((await readdir(machinesDirectory)).toSorted(), ["00000003", "00000004", "00000005"]);
  });

  it("a VM that can't be removed is reported, and keeps no other", async () => {
    const bad = await leave("00000006", { phase: "ending", cgroups: [noGroup] });
    const good = await leave("00000007", { phase: "ending" });
    const { removed, failed } = await sweepMachines(new VmRecords(machinesDirectory));
    assert.deepEqual(removed, [good]);
    assert.deepEqual(
      failed.map(({ directory }) => directory),
      [bad],
    );
  });
});

describe("the end of a VM, if it does not complete", () => {
  it("is in the record, for the next process", async () => {
    const directory = await leave("00000008", { cgroups: [noGroup] });
    const records = new VmRecords(machinesDirectory);
    const vm = await records.read("00000008");
    assert.ok(vm);
    const machine = Machine.adopt(vm, records);
    await assert.rejects(machine.destroy());
    const record = await readRecord(machineFiles(directory).record);
    assert.deepEqual([record?.phase, record?.creator], ["ending", await ownIdentity()]);
  });
});
