// Removes VMs with every trace: after their task, and after a driver process died half-way.
import { rm, stat } from "node:fs/promises";
import { removeGroup } from "../system/cgroups.ts";
import { exists } from "../system/files.ts";
import { isAlive, ownIdentity } from "../system/processes.ts";
import { deathTimeoutMs, killMachine } from "./kill-machine.ts";
import { machineFiles } from "./records/files.ts";
import { type MachineRecord, readRecord, writeRecord } from "./records/manifest.ts";
import type { RecordedVm, VmRecords } from "./records/vm-records.ts";

/** Kills the VM's processes, then removes its traces. Fails with MachineStuckError, or as removeTraces does. */
export async function removeMachine(vm: RecordedVm, records: VmRecords): Promise<void> {
  const record = await markEnding(vm);
  await killMachine({ ...vm, record });
  await removeTraces({ ...vm, record }, records);
}

/**
 * Nomad does not ask again if a driver failed to remove a VM or died over it. The record makes the next driver process
 * finish. On a full disk, or without a directory, the VM ends all the same.
 */
export async function markEnding(vm: RecordedVm): Promise<MachineRecord> {
  const record: MachineRecord = { ...vm.record, phase: "ending", creator: await ownIdentity() };
  await writeRecord(vm.files.record, record).catch(() => undefined);
  return record;
}

/** The network, the cgroups, then the directory with the jail and the record. No process may be left. */
export async function removeTraces(vm: RecordedVm, records: VmRecords): Promise<void> {
  const { network, cgroups, supervisorCgroups } = vm.record;
  if (network !== undefined) await records.networks.detach(network);
  await removeGroup({ directories: [...cgroups, ...supervisorCgroups], timeoutMs: deathTimeoutMs });
  await rm(vm.files.directory, { recursive: true, force: true });
}

export interface SweptMachines {
  /** The directories of VMs that are gone. */
  readonly removed: readonly string[];
  /** VMs that could not be removed, and are left for the next time. */
  readonly failed: readonly { readonly directory: string; readonly error: Error }[];
}

/** Removes VMs that were being started or ended when the process that did so died. */
export async function sweepMachines(records: VmRecords): Promise<SweptMachines> {
  const removed: string[] = [];
  const failed: { directory: string; error: Error }[] = [];
  for (const directory of await records.directories()) {
    try {
      if (await sweep(directory, records)) removed.push(directory);
    } catch (error) {
      failed.push({ directory, error: error as Error });
    }
  }
  return { removed, failed };
}

/** A directory without a readable record is left alone for this long: another process may be about to write it. */
const recordGraceMs = 60_000;

async function sweep(directory: string, records: VmRecords): Promise<boolean> {
  const files = machineFiles(directory);
  const record = await readRecord(files.record);
  if (record === undefined) {
    // Another version of the driver wrote it: its VM may well run.
    if (await exists(files.record)) return false;
    const facts = await stat(directory).catch(() => undefined);
    if (facts === undefined || Date.now() - facts.mtimeMs < recordGraceMs) return false;
    await rm(directory, { recursive: true, force: true });
    return true;
  }
  const isHalfWay = record.phase === "starting" || record.phase === "ending";
  if (!isHalfWay || (await isAlive(record.creator))) return false;
  await removeMachine({ files, record }, records);
  return true;
}
