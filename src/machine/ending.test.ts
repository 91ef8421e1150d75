import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { sampleRecord } from "../../test/fakes/sample-record.ts";
import { explainEnding, type VmmExit } from "./ending.ts";
import { machineFiles } from "./records/files.ts";
import type { MachineRecord } from "./records/manifest.ts";

let directory = "";

const record = (changed: Partial<MachineRecord> = {}): MachineRecord => ({ ...sampleRecord, ...changed });

async function codeOf(vmm: VmmExit | undefined, changed: Partial<MachineRecord> = {}): Promise<string> {
  return (await explainEnding({ vmm, record: record(changed), files: machineFiles(directory) })).code;
}

describe("why a VM ended", () => {
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), "ending-"));
  });
  after(() => rm(directory, { recursive: true }));

  it("never started", async () => assert.equal(await codeOf(undefined), "vmm_not_started"));

  it("a signal is the host's lack of memory only if its cgroup says so", async () => {
    const killed = { exitCode: 137, signal: 9 };
    assert.equal(await codeOf(killed), "vmm_killed");
    await writeFile(join(directory, "memory.events"), "oom_kill 1\n");
    assert.equal(await codeOf(killed, { cgroups: [directory] }), "vmm_out_of_memory");
    assert.equal(await codeOf({ exitCode: 139, signal: 11 }, { cgroups: [directory] }), "vmm_killed");
  });

  it("the end of a helper counts, not that of the VMM, which was killed for it", async () => {
    const options = { vmm: { exitCode: 137, signal: 9 }, helper: "vsock", files: machineFiles(directory) };
    const { code, summary } = await explainEnding({ ...options, record: record() });
    assert.equal(code, "helper_ended");
    assert.match(summary, /vsock/);
    await writeFile(join(directory, "memory.events"), "oom_kill 1\n");
    const starved = await explainEnding({ ...options, record: record({ cgroups: [directory] }) });
    assert.equal(starved.code, "helper_ended");
    assert.match(starved.summary, /no memory left/);
  });

  it("an exit status is the jailer's until the VMM was started", async () => {
    const failed = { exitCode: 1, signal: 0 };
    const startedPath = join(directory, "firecracker.pid");
    assert.equal(await codeOf(failed), "vmm_failed");
    assert.equal(await codeOf(failed, { startedPath }), "jailer_failed");
    await writeFile(startedPath, "1");
    assert.equal(await codeOf(failed, { startedPath }), "vmm_failed");
  });

  it("status 0 is a panic if the console shows one", async () => {
    const ended = { exitCode: 0, signal: 0 };
    assert.equal(await codeOf(ended), "guest_restarted");
    await writeFile(machineFiles(directory).vmmLog, "[ 1.0] Kernel panic - not syncing: No init\r\nRebooting\n");
    assert.equal(await codeOf(ended), "guest_panic");
  });
});
