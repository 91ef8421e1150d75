// All VMs of this host, as their directories tell.
import { readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { exists } from "../../system/files.ts";
import { isAlive } from "../../system/processes.ts";
import { Machine } from "../machine.ts";
import { machineFiles } from "./files.ts";
import { readRecord } from "./manifest.ts";

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

export interface SweptMachines {
  /** The directories of VMs that are gone. */
  readonly removed: readonly string[];
  /** What could not be removed, and is left for the next time. */
  readonly failed: readonly { readonly directory: string; readonly error: Error }[];
}

/** Removes VMs that never came to run, or were being ended, when the process that did so died. */
export async function sweepUnfinishedMachines(options: { machinesDirectory: string }): Promise<SweptMachines> {
  const removed: string[] = [];
  const failed: { directory: string; error: Error }[] = [];
  for (const directory of await machineDirectories(options.machinesDirectory)) {
    try {
      if (await sweep(directory)) removed.push(directory);
    } catch (error) {
      failed.push({ directory, error: error as Error });
    }
  }
  return { removed, failed };
}

async function sweep(directory: string): Promise<boolean> {
  const record = await readRecord(machineFiles(directory).record);
  if (record === undefined) {
    // Of another version of the driver: its VM may well run.
    if (await exists(machineFiles(directory).record)) return false;
    const facts = await stat(directory).catch(() => undefined);
    if (facts === undefined || Date.now() - facts.mtimeMs < recordGraceMs) return false;
    await rm(directory, { recursive: true, force: true });
    return true;
  }
  if (record.phase === "running" || (await isAlive(record.creator))) return false;
  await new Machine({ directory, record }).destroy();
  return true;
}
