// Starts a VM: directory, record, user, cgroup, files, supervisor, VMM. What fails half-way is undone before the error is told;
// what a crash leaves half-way is undone from the record, which is written before anything else.

import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { DriverError, reasonOf } from "../../system/error.ts";
import { ownIdentity } from "../../system/processes.ts";
import type { VmOptions } from "../../vmm/vm-options.ts";
import type { Drive, LaunchPlan, VmConfig, Vmm, VmUser } from "../../vmm/vmm.ts";
import { type CgroupSettings, type CpuLimits, MachineCgroup } from "../cgroup.ts";
import { lookAtDrives, refuseSharedDrives, toDrives } from "../drives.ts";
import { MachineStartError } from "../errors.ts";
import { lastOutput } from "../log-tail.ts";
import { Machine } from "../machine.ts";
import { type MachineFiles, machineFiles } from "../records/files.ts";
import { type MachineRecord, writeRecord } from "../records/manifest.ts";
import type { VmRecords } from "../records/vm-records.ts";
import { removeMachine } from "../remove-machine.ts";
import type { BootTimeline } from "../timeline.ts";
import { freeUser, type UserRange } from "../users.ts";
import { type MachineNetwork, makeVmInterface, openVmNetwork, vmNetwork, withoutForeignTap } from "./interface.ts";
import { spawnShim } from "./spawn-shim.ts";

/** What VMs of this host have in common. */
export interface MachineHost {
  readonly vmm: Vmm;
  readonly records: VmRecords;
  readonly shimPath: string;
  /** Whom jailed VMMs run as. */
  readonly users: UserRange;
  /** Undefined where there are no cgroups. */
  readonly cgroups: CgroupSettings | undefined;
}

export interface StartMachineOptions {
  readonly host: MachineHost;
  readonly labels: Readonly<Record<string, string>>;
  readonly vcpuCount: number;
  readonly memSizeMib: number;
  readonly cpu: CpuLimits;
  readonly vmlinuxPath: string;
  readonly initramfsPath: string;
  readonly kernelArguments: readonly string[];
  readonly vmOptions?: VmOptions | undefined;
  /** The network namespace that the VMM runs in where `network` doesn't say; default: the host's. */
  readonly netns?: string | undefined;
  /** Without it the VM has loopback only. */
  readonly network?: MachineNetwork | undefined;
  readonly vsock: boolean;
  /** The VM's own; those of `vmOptions` come after. */
  readonly drives: (files: MachineFiles) => readonly Drive[];
  /** Makes the VM's own files, once its record is written. */
  readonly makeFiles?: (files: MachineFiles) => Promise<void>;
  /** Where the task's output goes (FIFOs or files that exist). */
  readonly stdoutPath: string;
  readonly stderrPath: string;
  readonly timeline: BootTimeline;
  readonly signal: AbortSignal;
}

export interface StartedMachine {
  readonly machine: Machine;
  /** That its network is there, too; what fails in it is no unhandled rejection. */
  readonly networkOpen: Promise<void>;
}

/** Resolves when the guest was started. Fails with MachineStartError, NoFreeUserError, DriveInUseError, CgroupError or the VMM's error. */
export async function startMachine(options: StartMachineOptions): Promise<StartedMachine> {
  const { host, network, signal } = options;
  const created = await host.records.inTurn(() => registerMachine(options));
  const { files, config, plan, record, cgroup } = created;
  let machine: Machine | undefined;
  try {
    await cgroup?.create();
    await Promise.all([options.makeFiles?.(files), makeVmInterface({ network, user: config.user, signal })]);
    options.timeline.done("record, scratch disk, interface");
    // The rules take longer than the interface, and the guest needs no network to boot.
    const networkOpen = openVmNetwork({ network, records: host.records, signal });
    networkOpen.catch(() => undefined);
    await host.vmm.prepare(config);
    const shim = await spawnShim({
      shimPath: host.shimPath,
      id: config.id,
      files,
      plan,
      stdoutPath: options.stdoutPath,
      stderrPath: options.stderrPath,
      cgroups: record.cgroups,
      signal,
    });
    options.timeline.done("supervisor, VMM spawned");
    const started = { ...record, shim };
    await writeRecord(files.record, started);
    machine = Machine.adopt({ files, record: started }, host.records);
    await host.vmm.boot({ config, signal: AbortSignal.any([signal, machine.ended]) });
    options.timeline.done("VMM configured, guest started");
    return { machine, networkOpen };
  } catch (error) {
    const failure = await explainFailure({ error, machine, files, signal });
    if (machine !== undefined) await machine.destroy();
    else await removeMachine({ files, record: withoutForeignTap(record, error) }, host.records);
    throw failure;
  }
}

interface NewMachine {
  readonly files: MachineFiles;
  readonly config: VmConfig;
  readonly plan: LaunchPlan;
  readonly record: MachineRecord;
  readonly cgroup: MachineCgroup | undefined;
}

/** Takes an id, a user and disks that no other VM has; from here on the record tells what must be undone. */
async function registerMachine(options: StartMachineOptions): Promise<NewMachine> {
  const { host, vcpuCount, memSizeMib } = options;
  const { vmm } = host;
  const others = await host.records.list();
  const uid = vmm.jailed ? freeUser(host.users, others) : undefined;
  const user: VmUser | undefined = uid === undefined ? undefined : { uid, gid: uid };
  const hostDrives = await lookAtDrives(options.vmOptions?.drives ?? [], host.users);
  refuseSharedDrives(hostDrives, others);
  const { id, directory } = await makeDirectory(host.records.directory);
  const files = machineFiles(directory);
  const config: VmConfig = {
    id,
    directory,
    vcpuCount,
    memSizeMib,
    vmlinuxPath: options.vmlinuxPath,
    initramfsPath: options.initramfsPath,
    kernelArguments: options.kernelArguments,
    vsock: options.vsock,
    drives: [...options.drives(files), ...toDrives(hostDrives)],
    options: options.vmOptions,
    user,
    netns: options.netns,
    ...vmNetwork(options.network?.plan),
  };
  const plan = vmm.plan(config);
  const overheadMib = vmm.overheadMib(memSizeMib);
  const cgroup =
    host.cgroups &&
    new MachineCgroup({
      settings: host.cgroups,
      id,
      cpu: options.cpu,
      memoryMib: overheadMib === undefined ? undefined : memSizeMib + overheadMib,
    });
  const record: MachineRecord = {
    version: 1,
    id,
    phase: "starting",
    creator: await ownIdentity(),
    labels: { ...options.labels },
    vmm: { kind: vmm.kind, version: vmm.version, acceleration: vmm.acceleration },
    vcpuCount,
    memSizeMib,
    vsockPath: plan.vsockPath,
    startedPath: plan.startedPath,
    user,
    drives: hostDrives,
    network: options.network?.plan,
    cgroups: [...(cgroup?.directories ?? [])],
    createdAt: new Date().toISOString(),
  };
  await writeRecord(files.record, record);
  return { files, config, plan, record, cgroup };
}

async function makeDirectory(parent: string): Promise<{ id: string; directory: string }> {
  await mkdir(parent, { recursive: true, mode: 0o700 });
  for (;;) {
    const id = Buffer.from(crypto.getRandomValues(new Uint8Array(4))).toString("hex");
    const directory = join(parent, id);
    try {
      await mkdir(directory, { mode: 0o700 });
      return { id, directory };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    }
  }
}

/** The error to throw for a VM that did not come up: the VM's own end explains more than the call that it interrupted. */
export async function explainFailure(options: {
  error: unknown;
  machine: Machine | undefined;
  files: MachineFiles;
  signal: AbortSignal;
}): Promise<unknown> {
  const { error, machine, files, signal } = options;
  if (signal.aborted || !(error instanceof Error) || error instanceof MachineStartError) return error;
  const ending = await machine?.endingIfVmmIsGone();
  if (ending !== undefined) return new MachineStartError({ ...ending, cause: error });
  const facts = { reason: reasonOf(error), output: await lastOutput(files.vmmLog), cause: error };
  return new MachineStartError(error instanceof DriverError ? { ...facts, code: error.code } : facts);
}
