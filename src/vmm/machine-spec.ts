// A kind of VM as one value. Two VMs of one spec differ only in their place on the host: name, directory, sockets,
// disks, network.
import type { VmOptions } from "./vm-options.ts";

/**
 * Plain data without anything that belongs to one VM alone: a pool of VMs that wait for their task can be keyed by it.
 */
export interface MachineSpec {
  readonly vmlinuxPath: string;
  readonly initramfsPath: string;
  /** In addition to those that the VMM itself needs. */
  readonly kernelArguments: readonly string[];
  readonly vcpuCount: number;
  readonly memSizeMib: number;
  /** For each disk of the VM. Default: none. */
  readonly ioLimits?: IoLimits;
  /** For Firecracker only. */
  readonly options: VmOptions;
}

/** The host's limits on a disk, which a job's own can only make stricter. Undefined: no limit. */
export interface IoLimits {
  readonly bytesPerSecond: number | undefined;
  readonly opsPerSecond: number | undefined;
}

/** The kernel prints errors only: each line on the console costs a guest's boot time. */
export const quietArguments = ["quiet", "loglevel=3"] as const;
