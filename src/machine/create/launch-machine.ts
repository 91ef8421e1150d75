// Brings a task's VM up to where its agent in the guest answers.
import type { GuestFacts } from "../../guest/client.ts";
import { OwnTimeDeadline } from "../../system/own-time.ts";
import type { Machine } from "../machine.ts";
import { readShimState } from "../records/manifest.ts";
import { explainFailure, type StartMachineOptions, startMachine } from "./create-machine.ts";
import { createScratchDisk } from "./scratch-disk.ts";

export interface LaunchOptions extends Omit<StartMachineOptions, "vsock" | "drives" | "makeFiles"> {
  /** The image: a squashfs, shared read-only. */
  readonly imagePath: string;
  readonly scratchSizeMib: number;
  readonly spareDisksDirectory: string;
  /** From the guest's start to its agent's first answer, in the VMM's own time, at most three times as long (system/own-time.ts). */
  readonly bootTimeoutMs: number;
}

/** Fails with MachineStartError, ScratchDiskError or as startMachine does. */
export async function launchMachine(options: LaunchOptions): Promise<{ machine: Machine; guest: GuestFacts }> {
  const { imagePath, scratchSizeMib: sizeMib, spareDisksDirectory, bootTimeoutMs, signal } = options;
  const { machine, networkOpen } = await startMachine({
    ...options,
    vsock: true,
    drives: (files) => [
      { path: imagePath, readOnly: true },
      { path: files.scratchDisk, readOnly: false, sizeBytes: sizeMib * 1024 * 1024 },
    ],
    makeFiles: (files) =>
      createScratchDisk({ path: files.scratchDisk, sizeMib, spareDirectory: spareDisksDirectory, signal }),
  });
  try {
    const ready = AbortSignal.any([signal, machine.ended]);
    const vmmPid = (await readShimState(machine.files.shimState))?.vmm_pid ?? 0;
    using deadline = new OwnTimeDeadline({ pid: vmmPid, timeoutMs: bootTimeoutMs });
    const [guest] = await Promise.all([
      machine.guest.waitUntilReady({ timeoutMs: bootTimeoutMs, deadline: deadline.signal, signal: ready }),
      networkOpen,
    ]);
    options.timeline.done("agent answered, network open");
    return { machine, guest };
  } catch (error) {
    const failure = await explainFailure({ error, machine, files: machine.files, signal });
    await machine.destroy();
    throw failure;
  }
}
