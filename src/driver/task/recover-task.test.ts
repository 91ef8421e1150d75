import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import * as http2 from "node:http2";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { sampleRecord } from "../../../test/fakes/sample-record.ts";
import { Shim } from "../../gen/litegix/shim/v1/shim_pb.js";
import { VmRecords } from "../../machine/records/vm-records.ts";
import { sweepMachines } from "../../machine/remove-machine.ts";
import { ownIdentity } from "../../system/processes.ts";
import { encodeLabels } from "./labels.ts";
import { encodeDriverState, recoverTask } from "./recover-task.ts";

/** A VM as another driver process left it, whose supervisor is of the generation. */
async function leftVm(
  context: TestContext,
  options: { generation: number; version?: number },
): Promise<{ records: VmRecords; record: string }> {
  const machinesDirectory = await mkdtemp(join(tmpdir(), "litegix-recover-"));
  const directory = join(machinesDirectory, "0123abcd");
  await mkdir(directory);
  const creator = await ownIdentity();
  const record = join(directory, "machine.json");
  await writeFile(
    record,
    JSON.stringify({
      ...sampleRecord,
      version: options.version ?? 1,
      id: "0123abcd",
      phase: "running",
      creator,
      shim: creator,
      labels: encodeLabels({ taskId: "t", allocId: "a", taskName: "main", stopSignal: "", startedAt: new Date() }),
      vsockPath: join(directory, "v.sock"),
    }),
  );
  const status = () => ({ id: "0123abcd", version: "9.9.9", generation: options.generation });
  const server = http2.createServer(
    connectNodeAdapter({
      routes: (router) => router.service(Shim, { status, wait: () => new Promise(() => {}) }),
      acceptCompression: [],
    }),
  );
  const sessions = new Set<http2.ServerHttp2Session>();
  server.on("session", (session) => sessions.add(session));
  await new Promise<void>((resolve) => server.listen(join(directory, "shim.sock"), resolve));
  context.after(async () => {
    for (const session of sessions) session.destroy();
    server.close();
    await rm(machinesDirectory, { recursive: true });
  });
  return { records: new VmRecords(machinesDirectory), record };
}

const recover = (records: VmRecords) =>
  recoverTask({ taskId: "t", taskName: "main", driverState: encodeDriverState("0123abcd"), records });

test("a VM that outlived an upgrade is taken over when its supervisor speaks this driver's protocol", async (context) => {
  const { records } = await leftVm(context, { generation: 1 });
  const task = await recover(records);
  assert.equal(task.machine.record.id, "0123abcd");
  task.machine[Symbol.dispose]();
});

test("one whose supervisor does not is refused, in words for Nomad's user", async (context) => {
  const { records } = await leftVm(context, { generation: 7 });
  await assert.rejects(recover(records), {
    code: "recover",
    message: /can't recover task t: the VM's supervisor, of version "9.9.9", speaks generation 7 of its protocol/,
  });
});

test("a record of another version is refused, and nobody throws it away", async (context) => {
  const { records, record } = await leftVm(context, { generation: 1, version: 2 });
  await assert.rejects(recover(records), /is of no version that this driver reads/);
  assert.deepEqual(await sweepMachines(records), { removed: [], failed: [] });
  assert.match(await readFile(record, "utf8"), /"version":2/);
});
