// Jailed VMs under an agent: their records, jobs of several allocations, and a check that nothing of them is left on
// the host.
import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Agent } from "./agent.ts";
import { inRig } from "./environment.ts";
import { waitUntilNoMachineIsLeft } from "./machines.ts";
import { listProcesses } from "./processes.ts";
import { waitFor } from "./wait.ts";

const parentCgroup = "litegix-fc-driver";
const users = { first: 70_000, last: 79_999 };
/** Time for a job to come up on emulated CPUs. */
export const slowMs = 240_000;

/** Config lines of a task that runs a script. */
export function shell(script: string): string {
  return `image = "busybox:latest"\ncommand = "/bin/sh"\nargs = ["-c", ${JSON.stringify(script)}]`;
}

export interface SeenRecord {
  readonly id: string;
  readonly user?: { readonly uid: number };
  readonly network?: { readonly address: string; readonly tap: string };
  readonly cgroups: readonly string[];
  readonly supervisorCgroups: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
}

/** The records of all VMs. */
export async function records(agent: Agent): Promise<SeenRecord[]> {
  const parent = join(agent.basePath, "vms");
  const names = await readdir(parent);
  const texts = await Promise.all(
    names.map((name) => readFile(join(parent, name, "machine.json"), "utf8").catch(() => "")),
  );
  return texts.filter((text) => text !== "").map((text) => JSON.parse(text) as SeenRecord);
}

/** No process, mount, socket, file or TAP of a VM, none of its users' processes, no cgroup. */
export async function assertNothingLeft(agent: Agent, timeoutMs?: number): Promise<void> {
  await waitUntilNoMachineIsLeft(agent, timeoutMs);
  const groups = await readdir("/sys/fs/cgroup", { recursive: true });
  assert.deepEqual(
    groups.filter((path) => new RegExp(`(^|/)${parentCgroup}/[0-9a-f]{8}(-supervisor)?$`).test(path)),
    [],
  );
  const interfaces = await readFile("/proc/net/dev", "utf8");
  assert.doesNotMatch(interfaces, /^\s*lg[0-9a-f]{8}:/m);
  for (const { pid, commandLine } of await listProcesses()) {
    const status = await readFile(`/proc/${pid}/status`, "latin1").catch(() => "");
    const uid = Number(/^Uid:\s+(\d+)/m.exec(status)?.[1] ?? 0);
    assert.ok(uid < users.first || uid > users.last, `process ${pid} ${commandLine}`);
  }
}

/**
 * A guest's end by a fault of its emulated processor (virtualisation included), as seen by the guest (triple fault) or
 * by KVM (an exit that it does not know). Init ends the same way after a bug of its own, which it reports first.
 */
const emulationFault = /^(?!.*\bbug: ).*\((guest_restarted|vmm_failed)\)/s;

/**
 * Runs a job file until each of its allocations has the status; returns their ids. In test/rig's machine the emulation
 * may end up to `faults` of them. Those are printed but not counted, and Nomad starts others in their place.
 */
export async function runFile(options: {
  agent: Agent;
  path: string;
  job: string;
  status: string;
  count?: number;
  timeoutMs?: number;
  faults?: number;
}): Promise<string[]> {
  const { agent, count = 1, timeoutMs = slowMs } = options;
  const maxFaults = inRig ? (options.faults ?? 0) : 0;
  const faults = new Set<string>();
  const submitted = await agent.nomad(["job", "run", "-detach", options.path]);
  assert.equal(submitted.exitCode, 0, submitted.stderr);
  let last = "";
  return await waitFor({
    what: `${options.job} to be ${options.status}`,
    timeoutMs,
    intervalMs: 500,
    attempt: async () => {
      const all = await allocationsOf(agent, options.job);
      last = JSON.stringify(all.map(({ ClientStatus }) => ClientStatus));
      for (const stub of all) {
        if (stub.ClientStatus !== "failed" || faults.has(stub.ID) || faults.size === maxFaults) continue;
        if (!messagesOf(stub).some((it) => emulationFault.test(it))) continue;
        faults.add(stub.ID);
        console.log(`not counted: ${stub.ID} ended by its emulated processor: ${messagesOf(stub).join(" | ")}`);
      }
      const stubs = all.filter(({ ID }) => !faults.has(ID));
      if (stubs.length < count) return undefined;
      if (!stubs.every(({ ClientStatus }) => ClientStatus === options.status)) return undefined;
      return stubs.map(({ ID }) => ID);
    },
    seen: async () => {
      const events = (await allocationsOf(agent, options.job)).flatMap(messagesOf);
      return [last, ...new Set(events)].join("\n");
    },
  });
}

interface AllocationStub {
  readonly ID: string;
  readonly ClientStatus: string;
  readonly TaskStates: { readonly [task: string]: { readonly Events: readonly { DisplayMessage: string }[] } } | null;
}

async function allocationsOf(agent: Agent, job: string): Promise<AllocationStub[]> {
  return (await agent.get(`/v1/job/${job}/allocations`)) as AllocationStub[];
}

/** Nomad's stub of an allocation, with its tasks' events. */
function messagesOf({ TaskStates }: AllocationStub): string[] {
  return Object.values(TaskStates ?? {}).flatMap(({ Events }) => Events.map(({ DisplayMessage }) => DisplayMessage));
}

export async function stopJob(agent: Agent, job: string): Promise<void> {
  await agent.nomad(["job", "stop", "-detach", "-purge", "-yes", job]);
}
