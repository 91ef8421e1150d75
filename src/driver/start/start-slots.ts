// How many starts go on at a time on this host, whatever number of tasks Nomad starts at once. Converting an image, making a network
// and booting a guest all want a CPU: more of them at a time than there are CPUs makes none ready earlier, and all of them so
// slow that a registry, `nft` or a guest seems to hang.
import { availableParallelism } from "node:os";
import { Slots } from "../../system/wait.ts";

/** Even one CPU has something to do while another start waits for a disk. */
const atATime = Math.max(2, availableParallelism());

export interface StartSlotOptions {
  /** Tells the job's author what takes time. */
  readonly onEvent: (message: string) => void;
  readonly signal: AbortSignal;
}

/** Pulls may wait for a registry. They have slots of their own, so that they do not hold up VMs. */
const pulls = new Slots(atATime);
const vms = new Slots(atATime);

/** To be disposed of when the image is there. */
export async function pullSlot(options: StartSlotOptions): Promise<Disposable> {
  if (!pulls.hasFree) options.onEvent("Waiting for this host's other downloads");
  return await pulls.take(options.signal);
}

/** To be disposed of when the task runs. */
export async function startSlot(options: StartSlotOptions): Promise<Disposable> {
  if (!vms.hasFree) options.onEvent("Waiting for this host's other microVMs to start");
  return await vms.take(options.signal);
}
