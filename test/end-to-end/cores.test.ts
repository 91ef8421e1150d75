// Cores that Nomad reserves: VMs whose tasks reserved none keep off them, also those that run already.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { cpus } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { type Allocation, runService, startJob } from "./support/allocation.ts";
import { skipVms } from "./support/environment.ts";
import { Fixture } from "./support/fixture.ts";
import { machineOf, waitUntilNoMachineIsLeft } from "./support/machines.ts";
import { waitFor } from "./support/wait.ts";

const fixture = Fixture.use(undefined, { rawExec: true });

const waiting = 'image = "busybox:latest"\ncommand = "/bin/sleep"\nargs = ["1d"]';

/** By the kernel's word, of all threads of a process. */
async function coresOf(pid: number): Promise<string> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return /^Cpus_allowed_list:\s*(\S+)/m.exec(status)?.[1] ?? "";
}

async function waitForCores(allocation: Allocation, wanted: (cores: string) => boolean): Promise<string> {
  const { vmmPid } = await machineOf(allocation);
  let last = "";
  return await waitFor({
    what: "the VM to be on other cores",
    timeoutMs: 20_000,
    attempt: async () => {
      last = await coresOf(vmmPid);
      return wanted(last) ? last : undefined;
    },
    seen: async () => last,
  });
}

const oneCore: string | false = cpus().length < 2 ? "needs two cores" : false;

describe("cores", { skip: skipVms === false ? oneCore : skipVms }, () => {
  it("that another task reserves while a VM runs are not the VM's, until they are free again", async () => {
    const { agent } = fixture;
    const vm = await runService({ agent, config: waiting });
    const { vmmPid } = await machineOf(vm);
    const all = await coresOf(vmmPid);
    const other = await runService({
      agent,
      driver: "raw_exec",
      config: 'command = "/bin/sleep"\nargs = ["1d"]',
      cores: 1,
    });
    const fewer = await waitForCores(vm, (cores) => cores !== all);
    const record = JSON.parse(await readFile(join((await machineOf(vm)).directory, "machine.json"), "utf8")) as {
      sharedCores: string;
    };
    assert.match(record.sharedCores, /share/);
    const reserved = await reservedCores(other);
    assert.equal(reserved.length, 1);
    assert.ok(!expand(fewer).includes(reserved[0] ?? -1), `${fewer} has ${reserved.join()}`);
    // A VM that starts now does not get it either.
    const second = await startJob({ agent, config: waiting, type: "service" });
    await second.waitForStatus(["running"]);
    await waitForCores(second, (cores) => cores === fewer);
    await other.stop();
    await waitForCores(vm, (cores) => cores === all);
    await waitForCores(second, (cores) => cores === all);
    await vm.stop();
    await second.stop();
    await waitUntilNoMachineIsLeft(agent);
  });
});

async function reservedCores(allocation: Allocation): Promise<number[]> {
  const document = (await allocation.agent.get(`/v1/allocation/${allocation.id}`)) as {
    AllocatedResources: { Tasks: Record<string, { Cpu: { ReservedCores: number[] } }> };
  };
  return Object.values(document.AllocatedResources.Tasks).flatMap(({ Cpu }) => Cpu.ReservedCores);
}

/** "0,2-3" as numbers. */
function expand(list: string): number[] {
  return list.split(",").flatMap((part) => {
    const [first = 0, last = first] = part.split("-").map(Number);
    return Array.from({ length: last - first + 1 }, (_, index) => first + index);
  });
}
