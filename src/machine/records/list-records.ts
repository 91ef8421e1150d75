// What the records of this host's VMs say, and the turns in which new ones are written: whoever takes something that no other VM
// may have (a user, a disk) looks at the records and writes its own in one turn.
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { KeyedTurns } from "../../system/wait.ts";
import { machineFiles } from "./files.ts";
import { type MachineRecord, readRecord } from "./manifest.ts";

/** Of all VMs, in whatever phase. */
export async function listRecords(machinesDirectory: string): Promise<MachineRecord[]> {
  const names = await readdir(machinesDirectory).catch(() => [] as string[]);
  const records = await Promise.all(
    names.map((name) => readRecord(machineFiles(join(machinesDirectory, name)).record)),
  );
  return records.filter((record) => record !== undefined);
}

/**
 * By the VMs' directory. A turn ends with its own record written. Within this process: other processes of this base path start no
 * VMs.
 */
export const recordTurns = new KeyedTurns();
