import assert from "node:assert/strict";
import { link, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { sampleRecord } from "../../test/fakes/sample-record.ts";
import { openBeneath } from "../system/host-file.ts";
import { recordDrives, refuseSharedDrives } from "./drives.ts";
import type { HostDriveRecord, MachineRecord } from "./records/manifest.ts";

let directory = "";
let disk = "";

interface Wanted {
  readonly path: string;
  readonly readOnly?: boolean;
}

async function recorded(...wanted: Wanted[]): Promise<HostDriveRecord[]> {
  const records = wanted.map(async ({ path, readOnly = false }) => {
    await using file = await openBeneath({ path, roots: [directory] });
    return recordDrives([{ file, options: { drive_id: "data", path_on_host: path, is_read_only: readOnly } }]);
  });
  return (await Promise.all(records)).flat();
}

const vmWith = (drives: HostDriveRecord[]): MachineRecord => ({
  ...sampleRecord,
  drives,
  madeFor: "somebody",
});

describe("the host's disks", () => {
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), "drives-"));
    disk = join(directory, "disk");
    await writeFile(disk, Buffer.alloc(4096));
    await link(disk, join(directory, "other-name"));
  });
  after(() => rm(directory, { recursive: true }));

  it("are one VM's if it writes them, under whatever name, and any number's if all only read", async () => {
    const writing = await recorded({ path: disk });
    const reading = await recorded({ path: join(directory, "other-name"), readOnly: true });
    const inUse = { code: "drive_in_use", message: /VM 01234567 of somebody has it/ };
    assert.throws(() => refuseSharedDrives(writing, [vmWith(writing)]), inUse);
    assert.throws(() => refuseSharedDrives(reading, [vmWith(writing)]), inUse);
    assert.throws(() => refuseSharedDrives(writing, [vmWith(reading)]), inUse);
    refuseSharedDrives(reading, [vmWith(reading)]);
    refuseSharedDrives(writing, [sampleRecord]);
  });

  it("are not given twice to one VM", async () => {
    const twice = await recorded({ path: disk }, { path: join(directory, "other-name"), readOnly: true });
    assert.throws(() => refuseSharedDrives(twice, []), { code: "drive_in_use", message: /another drive of this task/ });
  });
});
