// The seam between a VM's life and the program that runs it. An implementation plans the processes that the VM's
// supervisor must start, and finishes the start from outside once they run (configure, start). Nothing here knows of Nomad.

import type { Confinement } from "../system/confine.ts";
import type { HostFile } from "../system/host-file.ts";
import type { MachineSpec } from "./machine-spec.ts";

export interface Drive {
  readonly path: string;
  readonly readOnly: boolean;
  /** A file's size; undefined if it is not known. */
  readonly sizeBytes?: number | undefined;
  /** Its name in the job, for a disk of the host. */
  readonly id?: string | undefined;
  /** A disk of the host, which lies at `path` in the VMM's view alone. */
  readonly file?: HostFile | undefined;
}

export interface NetworkInterface {
  readonly tap: string;
  readonly tapMac: string;
  readonly mtu: number;
  readonly guestMac: string;
  /** The file of the network namespace that the TAP belongs to; undefined: the host's. */
  readonly netns: string | undefined;
}

/** One VM: its kind, and its place on this host. */
export interface VmConfig {
  readonly spec: MachineSpec;
  /** Letters, digits and `-`, at most 64. */
  readonly id: string;
  /** The VM's own directory; every socket and log lies here. */
  readonly directory: string;
  /** False for a VM that nobody connects to (the probe). */
  readonly vsock: boolean;
  /** In the order in which the guest finds them: vda, vdb, ... Those of `spec.options` are among them. */
  readonly drives: readonly Drive[];
  readonly networkInterfaces?: readonly NetworkInterface[] | undefined;
  /** The user of a jailed VMM. No other VM has it meanwhile. */
  readonly user?: VmUser | undefined;
}

export interface VmUser {
  readonly uid: number;
  readonly gid: number;
}

/** A file that a process sees in the place of another, alone. */
export interface BindMount {
  readonly source: string;
  /** A file that exists. */
  readonly target: string;
  readonly readOnly: boolean;
}

/** Linux's name of it, as in /proc/PID/ns. In a "net" of its own, a process sees a loopback interface that is down, alone. */
export type Namespace = "pid" | "net" | "ipc" | "uts" | "cgroup";

/** A TAP that a process gets as an open descriptor. */
export interface TapDescriptor {
  readonly tap: string;
  /** See NetworkInterface. */
  readonly netns: string | undefined;
  /** The descriptor's number, from 100 up. */
  readonly descriptor: number;
}

/** A disk of the host that a process sees in the place of a file, alone. */
export interface DriveMount {
  readonly file: HostFile;
  /** A file that exists. */
  readonly target: string;
  readonly readOnly: boolean;
  /** The process's user, unless it is root: the disk shows this user as its owner. Its owner on the host stays. */
  readonly user: VmUser | undefined;
}

/** A TAP that a process finds in its own network namespace, down. */
export interface OwnTap {
  readonly tap: string;
  readonly tapMac: string;
  readonly mtu: number;
  /** The user that may open it, beside root. */
  readonly user: VmUser | undefined;
}

/** A child of the supervisor; the one named "vmm" is the VM. */
export interface VmProcess {
  readonly name: string;
  readonly argv: readonly [string, ...string[]];
  /** The file for its output, bounded by the supervisor. */
  readonly outputPath: string;
  /** The next process is started when this path exists. */
  readonly readyPath?: string;
  /** The namespaces that it does not share with the host. Binds give it a mount namespace too. */
  readonly namespaces: readonly Namespace[];
  /** The supervisor opens them where they are. */
  readonly taps?: readonly TapDescriptor[];
  /** The supervisor makes them. */
  readonly ownTaps?: readonly OwnTap[];
  readonly binds?: readonly BindMount[];
  readonly drives?: readonly DriveMount[];
  /** Rights that it has not given away by itself. */
  readonly confinement?: Confinement | undefined;
}

export interface LaunchPlan {
  readonly processes: readonly VmProcess[];
  /** The unix socket that speaks Firecracker's `CONNECT port`. It does not exist without `vsock`. */
  readonly vsockPath: string;
  /** A file that appears once the VMM has been started, if another program (the jailer) starts it. */
  readonly startedPath?: string | undefined;
}

/** The kind of boundary around a guest, as jobs constrain on it. Stable words: docs/operate/isolation.md has them. */
export type Isolation = `${"firecracker" | "qemu-kvm" | "qemu-emulated"}-${"jailed" | "unjailed"}`;

export function isolationOf({ kind, acceleration, jailed }: Pick<Vmm, "kind" | "acceleration" | "jailed">): Isolation {
  const program = kind === "firecracker" ? kind : acceleration === "kvm" ? "qemu-kvm" : "qemu-emulated";
  return `${program}-${jailed ? "jailed" : "unjailed"}`;
}

export interface Vmm {
  readonly kind: "firecracker" | "qemu";
  /** As the program prints it, e.g. "1.16.1". */
  readonly version: string;
  readonly acceleration: "kvm" | "emulation";
  /** Whether each VM must have a user of its own (VmConfig.user). */
  readonly jailed: boolean;
  /** Its need beyond the guest's memory, page tables included. */
  overheadMib(memSizeMib: number): number;
  /**
   * Whether `configure` makes the VMM open its TAPs by name, in its own network namespace: the plan has them made there, and they
   * must be moved to where they belong after it. Otherwise they are made there, and the plan passes them as descriptors.
   */
  readonly opensTaps: boolean;
  plan(config: VmConfig): LaunchPlan;
  /** Called once the VM's own files exist, before its processes are started. */
  prepare(config: VmConfig): Promise<void>;
  /** Called when every planned process runs; resolves when the VMM has opened everything. */
  configure(options: { config: VmConfig; signal: AbortSignal }): Promise<void>;
  /** Resolves when the guest has been started. */
  start(options: { config: VmConfig; signal: AbortSignal }): Promise<void>;
}
