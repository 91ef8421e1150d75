// The files of one VM. Each VM has one directory, named by its short id: a unix socket's path has at most 107 bytes.
import { join } from "node:path";

export interface MachineFiles {
  readonly directory: string;
  readonly record: string;
  readonly scratchDisk: string;
  readonly shimConfig: string;
  readonly shimState: string;
  readonly shimLog: string;
  readonly controlSocket: string;
  readonly exitRecord: string;
  /** The VMM's output with the guest's console. */
  readonly vmmLog: string;
}

export function machineFiles(directory: string): MachineFiles {
  return {
    directory,
    record: join(directory, "machine.json"),
    scratchDisk: join(directory, "scratch.ext4"),
    shimConfig: join(directory, "shim-config.json"),
    shimState: join(directory, "shim.json"),
    shimLog: join(directory, "shim.log"),
    controlSocket: join(directory, "shim.sock"),
    exitRecord: join(directory, "exit.json"),
    vmmLog: join(directory, "vmm.log"),
  };
}

/** The longest path of a unix socket in Linux, without its terminating zero. */
const maxSocketPathBytes = 107;
const longestSocketName = "/vms/01234567/shim.sock_1024";

/** The longest base directory with which every VM's sockets are reachable. */
export const maxBasePathBytes = maxSocketPathBytes - longestSocketName.length;
