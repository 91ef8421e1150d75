import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { Code, ConnectError } from "@connectrpc/connect";
import { FakeGuest } from "../../../test/fakes/fake-guest.ts";
import { fakeMachine } from "../../../test/fakes/fake-machine.ts";
import { sampleRecord } from "../../../test/fakes/sample-record.ts";
import type { SetPeersRequest } from "../../gen/litegix/guest/v1/guest_pb.js";
import { GuestClient } from "../../guest/client.ts";
import { VmRecords } from "../../machine/records/vm-records.ts";
import type { NetworkPlan } from "../../network/plan/network-plan.ts";
import { GroupPeers, peersOf } from "./group-peers.ts";
import { Task } from "./task.ts";

const namespacePath = "/run/netns/a";

async function machines(context: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "litegix-peers-"));
  context.after(() => rm(directory, { recursive: true }));
  return directory;
}

function plan(taskName: string, index: number, path: string): NetworkPlan {
  return {
    mode: "namespace",
    taskName,
    allocId: "a",
    table: "litegix_a",
    tap: `lg${index}`,
    tapMac: "02:00:00:00:00:01",
    guestMac: "02:00:00:00:00:02",
    gateway: `169.254.230.${index * 4 + 1}`,
    address: `169.254.230.${index * 4 + 2}`,
    mtu: 1500,
    egress: { default: "allow", allow: [], deny: [], floor: [] },
    path,
    index,
    device: "eth0",
    routes: [],
    ports: [],
    unnamedPorts: [],
    outsidePorts: [],
    hostPorts: [],
    hostNetworks: [],
  };
}

async function record(
  machinesDirectory: string,
  options: { taskName: string; index: number; path?: string; phase?: string },
): Promise<void> {
  const { taskName, index, path = namespacePath, phase = "running" } = options;
  const directory = join(machinesDirectory, `0000000${index}`);
  await mkdir(directory, { recursive: true });
  const content = {
    ...sampleRecord,
    id: `0000000${index}`,
    phase,
    network: plan(taskName, index, path),
  };
  await writeFile(join(directory, "machine.json"), JSON.stringify(content));
}

test("a task's peers are the others that run in its namespace and have a name for a file of hosts", async (context) => {
  const machinesDirectory = await machines(context);
  await record(machinesDirectory, { taskName: "web", index: 0 });
  await record(machinesDirectory, { taskName: "db", index: 1 });
  await record(machinesDirectory, { taskName: "starts", index: 2, phase: "starting" });
  await record(machinesDirectory, { taskName: "elsewhere", index: 3, path: "/run/netns/b" });
  await record(machinesDirectory, { taskName: "two words", index: 4 });
  const records = new VmRecords(machinesDirectory);
  const peers = await peersOf({ namespacePath, taskName: "web", records });
  assert.deepEqual(peers, [{ name: "db", address: Uint8Array.of(169, 254, 230, 6) }]);
});

/** A guest whose answer to each SetPeers comes from the test. */
async function guestThat(
  context: TestContext,
  retryMs: number,
  setPeers: (request: SetPeersRequest) => Promise<object>,
) {
  const machinesDirectory = await machines(context);
  await record(machinesDirectory, { taskName: "web", index: 0 });
  const socketPath = join(machinesDirectory, "guest.sock");
  const fake = await FakeGuest.start({ socketPath, service: { setPeers } });
  const guest = new GuestClient({ vsockPath: socketPath });
  const closing = new AbortController();
  context.after(async () => {
    closing.abort();
    guest[Symbol.dispose]();
    await fake[Symbol.asyncDispose]();
  });
  const warnings: string[] = [];
  const logger = { trace() {}, debug() {}, info() {}, warn: (message: string) => warnings.push(message), error() {} };
  const peers = new GroupPeers({ records: new VmRecords(machinesDirectory), logger, retryMs, signal: closing.signal });
  const network = plan("web", 0, namespacePath);
  const machine = fakeMachine({ guest, record: { ...sampleRecord, network } });
  const task = new Task({ id: "t", name: "web", machine, startedAt: new Date(0), stopSignal: "" });
  return { machinesDirectory, peers, task, warnings };
}

test("a change during a call to a guest, and a failed call, are made up for", async (context) => {
  const told: string[][] = [];
  const asked = Promise.withResolvers<void>();
  const proceed = Promise.withResolvers<void>();
  const last = Promise.withResolvers<void>();
  const { machinesDirectory, peers, task, warnings } = await guestThat(context, 10, async (request) => {
    told.push(request.peers.map(({ name }) => name));
    if (told.length === 1) {
      asked.resolve();
      await proceed.promise;
    }
    if (told.length === 2) throw new ConnectError("busy", Code.ResourceExhausted);
    if (told.length === 3) last.resolve();
    return {};
  });
  peers.changed(namespacePath, [task]);
  await asked.promise;
  await record(machinesDirectory, { taskName: "db", index: 1 });
  peers.changed("/run/netns/another", [task]);
  peers.changed(namespacePath, [task]);
  proceed.resolve();
  await last.promise;
  assert.deepEqual(told, [[], ["db"], ["db"]]);
  assert.deepEqual(warnings, []);
});
