// All VMs of this host, as their directories tell.
import { readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { exists } from "../system/exists.ts";
import { isAlive } from "../system/process-identity.ts";
import { Machine } from "./machine.ts";
import { machineFiles } from "./machine-files.ts";
import { readRecord } from "./machine-record.ts";

/** A directory without a readable record is left alone for as long: another process may be about to write it. */
const recordGraceMs = 60_000;

async function machineDirectories(parent: string): Promise<string[]> {
  const names = await readdir(parent).catch(() => [] as string[]);
  return names.map((name) => join(parent, name));
}

/** The VM that carries the label, adopted; undefined when there is none. */
export async function findMachineByLabel(options: {
  machinesDirectory: string;
  label: string;
  value: string;
}): Promise<Machine | undefined> {
  for (const directory of await machineDirectories(options.machinesDirectory)) {
    const record = await readRecord(machineFiles(directory).record);
    if (record?.labels[options.label] === options.value) return new Machine({ directory, record });
  }
  return undefined;
}

/** Removes VMs that never came to run because the process that was starting them died. Gives their ids. */
export async function sweepUnfinishedMachines(options: { machinesDirectory: string }): Promise<string[]> {
  const removed: string[] = [];
  for (const directory of await machineDirectories(options.machinesDirectory)) {
    const record = await readRecord(machineFiles(directory).record);
    if (record === undefined) {
      // Of another version of the driver: its VM may well run.
      if (await exists(machineFiles(directory).record)) continue;
      const facts = await stat(directory).catch(() => undefined);
      if (facts === undefined || Date.now() - facts.mtimeMs < recordGraceMs) continue;
      await rm(directory, { recursive: true, force: true });
    } else {
      if (record.phase !== "starting" || (await isAlive(record.creator))) continue;
      await new Machine({ directory, record }).destroy();
    }
    removed.push(directory);
  }
  return removed;
}
