// What the records of this host's VMs say, and the turns in which new ones are written: whoever takes something that no other VM
// may have (a user, a disk) looks at the records and writes its own in one turn.
import { readdir } from "node:fs/promises";
import { join } from "node:path";
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

/** One at a time within this process; other processes of this base path start no VMs. */
let queue: Promise<unknown> = Promise.resolve();

/** Runs `take` when those before it are over; its own record must be there when it resolves. */
export async function inTurn<T>(take: () => Promise<T>): Promise<T> {
  const turn = queue.then(take);
  queue = turn.catch(() => undefined);
  return await turn;
}
