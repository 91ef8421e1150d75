import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { sampleRecord } from "../../test/fakes/sample-record.ts";
import { machineFiles } from "./records/files.ts";
import { writeRecord } from "./records/manifest.ts";
import { VmRecords } from "./records/vm-records.ts";
import { freeUser } from "./users.ts";

describe("users of jailed VMs", () => {
  it("are given once, however many VMs start at a time, until their VM's directory is gone", async () => {
    const machinesDirectory = await mkdtemp(join(tmpdir(), "users-"));
    const range = { first: 70_000, last: 70_004 };
    let made = 0;
    const records = new VmRecords(machinesDirectory);
    const start = async (): Promise<number> => {
      using _turn = await records.turn(new AbortController().signal);
      const uid = freeUser(range, await records.list());
      made += 1;
      const directory = join(machinesDirectory, `${made}`);
      await mkdir(directory);
      await writeRecord(machineFiles(directory).record, { ...sampleRecord, user: { uid, gid: uid } });
      return uid;
    };
    const given = await Promise.all([start(), start(), start(), start(), start()]);
    assert.deepEqual(
      given.toSorted((a, b) => a - b),
      [70_000, 70_001, 70_002, 70_003, 70_004],
    );
    await assert.rejects(start(), { code: "no_free_user" });
    await rm(join(machinesDirectory, "3"), { recursive: true });
    assert.equal(await start(), given[2]);
    await rm(machinesDirectory, { recursive: true });
  });
});
