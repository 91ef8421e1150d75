// VM tasks of one group know each other by name: each one's /etc/hosts has the others that run now. The driver repeats its call
// until a guest has taken the names from the records, since a guest may be busy and another VM may just be starting.
import type { MachineRecord } from "../../machine/records/manifest.ts";
import type { VmRecords } from "../../machine/records/vm-records.ts";
import { namespacePathOf } from "../../network/plan/network-plan.ts";
import { addressBytes } from "../../system/ip.ts";
import type { Logger } from "../../system/logger.ts";
import { pollUntil } from "../../system/wait.ts";
import type { Task } from "./task.ts";

export interface GroupPeer {
  readonly name: string;
  readonly address: Uint8Array;
}

const defaultRetryMs = 1_000;
const giveUpMs = 600_000;
/** Names that /etc/hosts can hold; Nomad allows more in a task's name. */
const hostName = /^[a-zA-Z0-9._-]{1,255}$/;

/** The tasks that run in the same namespace beside `taskName`. */
export async function peersOf(options: {
  namespacePath: string;
  taskName: string;
  records: VmRecords;
}): Promise<GroupPeer[]> {
  const plans = await options.records.plans("running");
  return plans
    .filter((plan) => namespacePathOf(plan) === options.namespacePath)
    .filter(({ taskName }) => taskName !== options.taskName && hostName.test(taskName))
    .toSorted((a, b) => a.taskName.localeCompare(b.taskName))
    .map(({ taskName, address }) => ({ name: taskName, address: addressBytes(address) }));
}

export interface GroupPeersOptions {
  readonly records: VmRecords;
  readonly logger: Logger;
  /** Between two tries to give a guest its peers. */
  readonly retryMs?: number;
  readonly signal: AbortSignal;
}

export class GroupPeers {
  readonly #options: GroupPeersOptions;
  /** The tasks with a call under way. `stale`: something has changed since their peers were looked up. */
  readonly #telling = new Map<Task, { stale: boolean }>();

  constructor(options: GroupPeersOptions) {
    this.#options = options;
  }

  /** Call it if a task of the namespace has begun, was found again, or is gone. Returns before the guests know. */
  changed(namespacePath: string | undefined, tasks: Iterable<Task>): void {
    if (namespacePath === undefined) return;
    for (const task of tasks)
      if (namespaceOf(task.machine.record) === namespacePath) void this.#tell(task, namespacePath);
  }

  async #tell(task: Task, namespacePath: string): Promise<void> {
    const running = this.#telling.get(task);
    if (running !== undefined) {
      running.stale = true;
      return;
    }
    const state = { stale: true };
    this.#telling.set(task, state);
    const { logger, records } = this.#options;
    const signal = AbortSignal.any([this.#options.signal, task.machine.ended]);
    let last: unknown;
    try {
      await pollUntil({
        attempt: async () => {
          try {
            while (state.stale) {
              state.stale = false;
              const peers = await peersOf({ namespacePath, taskName: task.name, records });
              await task.guest.setPeers({ peers, signal });
            }
            return true;
          } catch (error) {
            state.stale = true;
            last = error;
            return undefined;
          }
        },
        intervalMs: this.#options.retryMs ?? defaultRetryMs,
        timeoutMs: giveUpMs,
        onTimeout: () => last as Error,
        signal,
      });
    } catch (error) {
      if (signal.aborted) return;
      logger.warn("a task does not know the others of its group by name", {
        task_id: task.id,
        error: (error as Error).message,
      });
    } finally {
      this.#telling.delete(task);
    }
  }
}

/** Undefined if the VM has no namespace to share. */
export function namespaceOf({ network }: MachineRecord): string | undefined {
  return network && namespacePathOf(network);
}
