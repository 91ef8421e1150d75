// Limits the starts that go on at a time on this host, however many tasks Nomad starts at once. Converting an image,
// making a network and booting a guest all need a CPU. More of them at a time than CPUs make none ready earlier, but
// slow all of them until a registry, `nft` or a guest seems to hang.
import { availableParallelism } from "node:os";
import { Slots } from "../../system/wait.ts";

/** Even one CPU has work while another start waits for a disk. */
const atATime = Math.max(2, availableParallelism());

export interface StartSlotOptions {
  /** Reports waiting to the job's author. */
  readonly onEvent: (message: string) => void;
  readonly signal: AbortSignal;
}

/** Pulls may wait for a registry. They have slots of their own, so that they do not delay VMs. */
const pulls = new Slots(atATime);
const vms = new Slots(atATime);

/** Dispose of it once the image is there. */
export async function pullSlot(options: StartSlotOptions): Promise<Disposable> {
  if (!pulls.hasFree) options.onEvent("Waiting for this host's other downloads");
  return await pulls.take(options.signal);
}

/** Dispose of it once the task runs. */
export async function startSlot(options: StartSlotOptions): Promise<Disposable> {
  if (!vms.hasFree) options.onEvent("Waiting for this host's other microVMs to start");
  return await vms.take(options.signal);
}
