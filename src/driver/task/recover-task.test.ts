import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import * as http2 from "node:http2";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import type { ServiceImpl } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { sampleRecord } from "../../../test/fakes/sample-record.ts";
import { Shim } from "../../gen/litegix/shim/v1/shim_pb.js";
import type { MachineRecord } from "../../machine/records/manifest.ts";
import { VmRecords } from "../../machine/records/vm-records.ts";
import { sweepMachines } from "../../machine/remove-machine.ts";
import { ownIdentity, readStartTime } from "../../system/processes.ts";
import { encodeLabels } from "./labels.ts";
import { encodeDriverState, recoverTask } from "./recover-task.ts";

type ShimCalls = Partial<ServiceImpl<typeof Shim>>;

/** A VM as another driver process left it, whose supervisor is of the generation. */
async function leftVm(
  context: TestContext,
  options: { generation: number; version?: number; facts?: Partial<MachineRecord>; calls?: ShimCalls },
): Promise<{ records: VmRecords; directory: string; record: string }> {
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
      ...options.facts,
    }),
  );
  const status = () => ({ id: "0123abcd", version: "9.9.9", generation: options.generation });
  const server = http2.createServer(
    connectNodeAdapter({
      routes: (router) => router.service(Shim, { status, wait: () => new Promise(() => {}), ...options.calls }),
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
  return { records: new VmRecords(machinesDirectory), directory, record };
}

const recover = (records: VmRecords) =>
  recoverTask({ taskId: "t", taskName: "main", driverState: encodeDriverState("0123abcd"), records });

test("a VM that outlived an upgrade is taken over if its supervisor speaks this driver's protocol", async (context) => {
  const { records } = await leftVm(context, { generation: 1 });
  const task = await recover(records);
  assert.equal(task.machine.record.id, "0123abcd");
  task.machine[Symbol.dispose]();
});

test("a VM whose supervisor does not is refused, in words for Nomad's user", async (context) => {
  const { records } = await leftVm(context, { generation: 7 });
  await assert.rejects(recover(records), {
    code: "recover",
    message: /can't recover task t: the VM's supervisor, of version "9.9.9", speaks generation 7 of its protocol/,
  });
});

test("a record of another version is refused, and not deleted", async (context) => {
  const { records, record } = await leftVm(context, { generation: 1, version: 2 });
  await assert.rejects(recover(records), /is of no version that this driver reads/);
  assert.deepEqual(await sweepMachines(records), { removed: [], failed: [] });
  assert.match(await readFile(record, "utf8"), /"version":2/);
});

/** A process that only waits, as a supervisor that does not answer. */
async function standIn(context: TestContext): Promise<{ pid: number; startTime: string }> {
  const child: ChildProcess = spawn("sleep", ["600"], { stdio: "ignore" });
  context.after(() => child.kill("SIGKILL"));
  const pid = child.pid ?? 0;
  return { pid, startTime: (await readStartTime(pid)) ?? "" };
}

test("a plugin that dies between the kill and the record of the end: the next one still knows of the kill", async (context) => {
  const killAsked = Promise.withResolvers<void>();
  const proceed = Promise.withResolvers<void>();
  const nobody = { pid: 2 ** 22 + 1, startTime: "1" };
  const { records, directory } = await leftVm(context, {
    generation: 1,
    facts: { creator: nobody, shim: await standIn(context) },
    calls: {
      kill: async () => {
        killAsked.resolve();
        await proceed.promise;
        return {};
      },
      wait: async () => {
        await proceed.promise;
        return {};
      },
    },
  });
  const task = await recover(records);
  const stopping = task.stop({ timeoutMs: 0, signalName: "" });
  await killAsked.promise;
  // The plugin is dead now: its supervisor writes the record, and the next plugin sweeps first.
  const end = { task: null, vmm: { exit_code: 137, signal: 9 }, error: "killed", helper: "" };
  await writeFile(join(directory, "exit.json"), JSON.stringify(end));
  assert.deepEqual(await sweepMachines(records), { removed: [], failed: [] });
  const again = await recover(records);
  proceed.resolve();
  assert.deepEqual(await again.exited, { exitCode: 137, signal: 9, oomKilled: false });
  await stopping;
  for (const each of [task, again]) each.machine[Symbol.dispose]();
});
