// Keeps VMs whose tasks reserved no cores on the cores that Nomad leaves for such tasks. Nomad moves its own cgroup of these tasks
// whenever it reserves or frees a core. VMs have cgroups outside of Nomad's, so the driver follows that one: the kernel reports no
// change of its cores, and one small file is read each second. While no driver runs, a VM stays on the cores that it has.
import { setTimeout as delay } from "node:timers/promises";
import { effectiveCores, setCores } from "../system/cgroups.ts";
import type { Logger } from "../system/logger.ts";
import type { VmRecords } from "./records/vm-records.ts";

const intervalMs = 1_000;

/** Puts a new VM on the cores of the group now. Without such a group it stays on all. Fails as the file system does. */
export async function shareCores(directories: readonly string[], group: string): Promise<void> {
  const cores = await effectiveCores(group);
  if (cores !== undefined) await setCores(directories, cores);
}

/** Follows the groups of all VMs until `signal` aborts. */
export async function keepSharedCores(options: {
  records: VmRecords;
  logger: Logger;
  signal: AbortSignal;
}): Promise<void> {
  const { records, logger, signal } = options;
  const follower = new CoreFollower({ records, logger });
  while (!signal.aborted) {
    await follower.follow().catch((error: unknown) => {
      logger.warn("can't look for changed cores", { error: (error as Error).message });
    });
    await delay(intervalMs, undefined, { signal, ref: false }).catch(() => undefined);
  }
}

/** A VM as its record describes it; the record's part about cores never changes. */
interface Follower {
  readonly directories: readonly string[];
  /** Undefined for a VM with cores of its own. */
  readonly group: string | undefined;
  /** Set by this process. */
  cores?: string;
}

export class CoreFollower {
  readonly #records: VmRecords;
  readonly #logger: Logger;
  #known = new Map<string, Follower>();

  constructor(options: { records: VmRecords; logger: Logger }) {
    this.#records = options.records;
    this.#logger = options.logger;
  }

  /** Brings every VM to the cores that its group has now. */
  async follow(): Promise<void> {
    await this.#learn();
    const cores = new Map<string, string | undefined>();
    for (const [id, vm] of this.#known) {
      if (vm.group === undefined) continue;
      if (!cores.has(vm.group)) cores.set(vm.group, await effectiveCores(vm.group));
      const now = cores.get(vm.group);
      // The first look also covers a change between the VM's creation and now.
      if (now === undefined || now === vm.cores) continue;
      try {
        await setCores(vm.directories, now);
        if (vm.cores !== undefined) this.#logger.info("moved a VM to other cores", { vm: id, from: vm.cores, to: now });
        vm.cores = now;
      } catch (error) {
        // A VM that comes or goes has no cgroup.
        if ((error as NodeJS.ErrnoException).code === "ENOENT") continue;
        this.#logger.warn("can't move a VM to other cores", { vm: id, to: now, error: (error as Error).message });
        vm.cores = now;
      }
    }
  }

  async #learn(): Promise<void> {
    const known = new Map<string, Follower>();
    for (const id of await this.#records.ids()) {
      const vm = this.#known.get(id) ?? (await this.#read(id));
      if (vm !== undefined) known.set(id, vm);
    }
    this.#known = known;
  }

  async #read(id: string): Promise<Follower | undefined> {
    const vm = await this.#records.read(id);
    return vm && { directories: vm.record.cgroups, group: vm.record.sharedCores };
  }
}
