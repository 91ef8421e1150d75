import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { ownIdentity } from "../../system/processes.ts";
import { Machine } from "../machine.ts";
import { machineFiles } from "./files.ts";
import { sweepUnfinishedMachines } from "./machine-store.ts";
import { type MachineRecord, readRecord, writeRecord } from "./manifest.ts";

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
    version: 1,
    id,
    phase: "running",
    creator: nobody,
    labels: {},
    vmm: { kind: "qemu", version: "7", acceleration: "emulation" },
    vcpuCount: 1,
    memSizeMib: 128,
    vsockPath: join(directory, "v.sock"),
    drives: [],
    cgroups: [],
    createdAt: new Date().toISOString(),
    ...facts,
  };
  await writeRecord(machineFiles(directory).record, record);
  return directory;
}

describe("VMs that an earlier process left", () => {
  it("what was half started or half ended is removed, what runs or is at work is not", async () => {
    const alive = await ownIdentity();
    const removed = [await leave("00000001", { phase: "starting" }), await leave("00000002", { phase: "ending" })];
    await leave("00000003", { phase: "running" });
    await leave("00000004", { phase: "starting", creator: alive });
    await leave("00000005", { phase: "ending", creator: alive });
    const swept = await sweepUnfinishedMachines({ machinesDirectory });
    assert.deepEqual([swept.removed.toSorted(), swept.failed], [removed, []]);
    assert.deepEqual((await readdir(machinesDirectory)).toSorted(), ["00000003", "00000004", "00000005"]);
  });

  it("one that can't be removed does not keep another, and is told of", async () => {
    const bad = await leave("00000006", { phase: "ending", cgroups: [noGroup] });
    const good = await leave("00000007", { phase: "ending" });
    const { removed, failed } = await sweepUnfinishedMachines({ machinesDirectory });
    assert.deepEqual(removed, [good]);
    assert.deepEqual(
      failed.map(({ directory }) => directory),
      [bad],
    );
  });
});

describe("the end of a VM that does not come to its end", () => {
  it("is in the record, for the next process", async () => {
    const directory = await leave("00000008", { cgroups: [noGroup] });
    const machine = await Machine.adopt(directory);
    assert.ok(machine);
    await assert.rejects(machine.destroy());
    const record = await readRecord(machineFiles(directory).record);
    assert.deepEqual([record?.phase, record?.creator], ["ending", await ownIdentity()]);
  });
});
