// The records of one base path's VMs. A driver process makes one such object and hands it down. A VM takes the things that no other
// VM may have (a user, a disk) in one turn, in which its creator looks at the other records and writes the VM's own.
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { Networks } from "../../network/network.ts";
import type { NetworkPlan } from "../../network/plan/network-plan.ts";
import { Slots } from "../../system/wait.ts";
import { type MachineFiles, machineFiles } from "./files.ts";
import { type MachineRecord, readRecord } from "./manifest.ts";

/** A VM as its directory describes it. */
export interface RecordedVm {
  readonly files: MachineFiles;
  readonly record: MachineRecord;
}

export class VmRecords {
  /** The folder of all VMs. */
  readonly directory: string;
  /** The networks of these VMs. */
  readonly networks = new Networks(this);
  readonly #turns = new Slots(1);

  constructor(directory: string) {
    this.directory = directory;
  }

  /** All VMs, in whatever phase. A directory without a readable record is left out. */
  async list(): Promise<MachineRecord[]> {
    const vms = await Promise.all((await this.directories()).map(read));
    return vms.flatMap((vm) => vm?.record ?? []);
  }

  /** Undefined if the VM's record is missing, or of a version that this driver does not read. */
  async read(id: string): Promise<RecordedVm | undefined> {
    return await read(join(this.directory, id));
  }

  async find(isMeant: (record: MachineRecord) => boolean): Promise<RecordedVm | undefined> {
    for (const directory of await this.directories()) {
      const vm = await read(directory);
      if (vm !== undefined && isMeant(vm.record)) return vm;
    }
    return undefined;
  }

  /** The networks of all VMs that have one, by default in whatever phase. */
  async plans(phase?: MachineRecord["phase"]): Promise<NetworkPlan[]> {
    const records = await this.list();
    return records
      .filter((record) => phase === undefined || record.phase === phase)
      .flatMap(({ network }) => network ?? []);
  }

  /** The VMs' directories, with or without a record. */
  async directories(): Promise<string[]> {
    return (await this.ids()).map((name) => join(this.directory, name));
  }

  /** The directories' names. */
  async ids(): Promise<string[]> {
    return await readdir(this.directory).catch(() => [] as string[]);
  }

  /**
   * Dispose of it once the VM's own record is written. The turns are this process's: no other process of this base path
   * starts VMs. Rejects with the signal's reason.
   */
  async turn(signal: AbortSignal): Promise<Disposable> {
    return await this.#turns.take(signal);
  }
}

async function read(directory: string): Promise<RecordedVm | undefined> {
  const files = machineFiles(directory);
  const record = await readRecord(files.record);
  return record === undefined ? undefined : { files, record };
}
