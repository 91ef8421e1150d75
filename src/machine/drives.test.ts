import assert from "node:assert/strict";
import { chown, link, mkdtemp, rename, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { sampleRecord } from "../../test/fakes/sample-record.ts";
import type { ExtraDrive } from "../vmm/vm-options.ts";
import { giveDrivesBack, inspectDrives, refuseSharedDrives } from "./drives.ts";
import type { HostDriveRecord, MachineRecord } from "./records/manifest.ts";

const users = { first: 70_000, last: 70_009 };
const user = { uid: 70_003, gid: 70_003 };
const skip = process.getuid?.() === 0 ? false : "changing owners needs root";

let directory = "";
let disk = "";

const drive = (path: string, readOnly?: boolean): ExtraDrive => ({
  drive_id: "data",
  path_on_host: path,
  ...(readOnly === undefined ? {} : { is_read_only: readOnly }),
});
const lookAt = (...drives: ExtraDrive[]): Promise<HostDriveRecord[]> => inspectDrives(drives, users);
const vmWith = (drives: HostDriveRecord[]): MachineRecord => ({
  ...sampleRecord,
  user,
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
    const [writing, reading] = [await lookAt(drive(disk)), await lookAt(drive(join(directory, "other-name"), true))];
    const inUse = { code: "drive_in_use", message: /VM 01234567 of somebody has it/ };
    assert.throws(() => refuseSharedDrives(writing, [vmWith(writing)]), inUse);
    assert.throws(() => refuseSharedDrives(reading, [vmWith(writing)]), inUse);
    assert.throws(() => refuseSharedDrives(writing, [vmWith(reading)]), inUse);
    refuseSharedDrives(reading, [vmWith(reading)]);
    refuseSharedDrives(writing, [sampleRecord]);
  });

  it("are not given twice to one VM", async () => {
    const twice = await lookAt(drive(disk), drive(join(directory, "other-name"), true));
    assert.throws(() => refuseSharedDrives(twice, []), { code: "drive_in_use", message: /another drive of this task/ });
  });

  it("belong to their former owner again once their VM has ended", { skip }, async () => {
    await chown(disk, 1000, 1001);
    const record = vmWith(await lookAt(drive(disk)));
    await chown(disk, user.uid, user.gid);
    await giveDrivesBack(record);
    await giveDrivesBack(record);
    const { uid, gid } = await stat(disk);
    assert.deepEqual({ uid, gid }, { uid: 1000, gid: 1001 });
  });

  it("are left alone if somebody gave them away or put another file in their place", { skip }, async () => {
    const record = vmWith(await lookAt(drive(disk)));
    await chown(disk, 1002, 1002);
    await giveDrivesBack(record);
    assert.equal((await stat(disk)).uid, 1002);
    await rename(disk, join(directory, "moved"));
    await giveDrivesBack(record);
    await writeFile(disk, "");
    await chown(disk, user.uid, user.gid);
    await giveDrivesBack(record);
    assert.equal((await stat(disk)).uid, user.uid);
  });

  it("are root's if a VM's user was left as their owner", { skip }, async () => {
    await chown(disk, user.uid, user.gid);
    const [seen] = await lookAt(drive(disk));
    assert.deepEqual(seen?.owner, { uid: 0, gid: 0 });
  });
});
