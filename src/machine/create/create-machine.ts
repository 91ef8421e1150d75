// Makes all parts of a VM before it has processes: directory, record, user, cgroup, disk, network interface. A fault
// half-way undoes them before the error is thrown. After a crash half-way, the next process undoes them from the
// record, which is written before anything else.
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { HostFile } from "../../system/host-file.ts";
import { ownIdentity } from "../../system/processes.ts";
import type { MachineSpec } from "../../vmm/machine-spec.ts";
import type { Drive, LaunchPlan, VmConfig, Vmm, VmUser } from "../../vmm/vmm.ts";
import { type CgroupSettings, type CpuLimits, MachineCgroup } from "../cgroup.ts";
import { type HostDrive, recordDrives, refuseSharedDrives, toDrives } from "../drives.ts";
import { type MachineFiles, machineFiles } from "../records/files.ts";
import { type MachineRecord, writeRecord } from "../records/manifest.ts";
import type { RecordedVm, VmRecords } from "../records/vm-records.ts";
import type { BootTimeline } from "../timeline.ts";
import { freeUser, type UserRange } from "../users.ts";
import { type MachineNetwork, makeVmInterface, vmNetwork, withoutForeignTap } from "./interface.ts";
import { claimScratchDisk, formatScratchDisk } from "./scratch-disk.ts";
import { undoCreation } from "./undo-machine.ts";

/** The things that all VMs of this host have in common. */
export interface MachineHost {
  readonly vmm: Vmm;
  readonly records: VmRecords;
  readonly shimPath: string;
  /** The users that jailed VMMs run as. */
  readonly users: UserRange;
  /** Undefined on a host without cgroups. */
  readonly cgroups: CgroupSettings | undefined;
  /** The space below the base path that VMs' disks leave free. */
  readonly minFreeMib: number;
}

/** One VM as its owner wants it. */
export interface MachineRequest {
  readonly spec: MachineSpec;
  /** The host's disks of the spec, in its order. They are open until the VM has been created. */
  readonly drives?: readonly HostFile[] | undefined;
  readonly cpu: CpuLimits;
  /** See the record's fields of these names. */
  readonly labels: Readonly<Record<string, string>>;
  readonly madeFor: string;
  /** Undefined: the VM has loopback only. */
  readonly network?: MachineNetwork | undefined;
  /** Undefined: the VM has neither disks nor vsock, and its guest ends by itself. */
  readonly workload?: Workload | undefined;
}

/** A VM needs this for a task. */
export interface Workload {
  /** The image: a squashfs, shared read-only. */
  readonly imagePath: string;
  readonly scratchSizeMib: number;
  readonly spareDisksDirectory: string;
  /** The FIFOs that take the task's output, or /dev/null. */
  readonly stdoutPath: string;
  readonly stderrPath: string;
  /** The FIFOs lie beneath it; no link is followed on the way to them. Only the host's root can replace it. */
  readonly logRoot: string;
}

export interface CreateMachineOptions {
  readonly host: MachineHost;
  readonly request: MachineRequest;
  readonly timeline: BootTimeline;
  readonly signal: AbortSignal;
}

/** A VM without processes. */
export interface CreatedMachine extends RecordedVm {
  readonly config: VmConfig;
  readonly plan: LaunchPlan;
}

/** Fails with NoFreeUserError, DriveInUseError, DiskFullError, CgroupError, ScratchDiskError, the VMM's or the network's errors. */
export async function createMachine(options: CreateMachineOptions): Promise<CreatedMachine> {
  const { host, request, timeline, signal } = options;
  const { records, vmm } = host;
  const { network, workload } = request;
  const { cgroups, formatted, ...registered } = await register(host, request, signal);
  const { files, config, record } = registered;
  try {
    for (const cgroup of cgroups) await cgroup.create();
    await Promise.all([
      workload &&
        !formatted &&
        formatScratchDisk({ path: files.scratchDisk, sizeMib: workload.scratchSizeMib, signal }),
      vmm.opensTaps || makeVmInterface({ network, signal }),
    ]);
    timeline.done("record, scratch disk, interface");
    await vmm.prepare(config);
    return registered;
  } catch (error) {
    throw await undoCreation({ vm: { files, record: withoutForeignTap(record, error) }, records, error, signal });
  }
}

interface Registered extends CreatedMachine {
  readonly cgroups: readonly MachineCgroup[];
  /** The scratch disk is. */
  readonly formatted: boolean;
}

/** Takes an id, a user, disks that no other VM has, and the space of the VM's own disk. From here on the record tells a later process what to undo. */
async function register(host: MachineHost, request: MachineRequest, signal: AbortSignal): Promise<Registered> {
  const { vmm, records, users } = host;
  const { spec, network, workload } = request;
  using _turn = await records.turn(signal);
  const others = await records.list();
  const uid = vmm.jailed ? freeUser(users, others) : undefined;
  const user: VmUser | undefined = uid === undefined ? undefined : { uid, gid: uid };
  const hostDrives = hostDrivesOf(request);
  const recordedDrives = recordDrives(hostDrives);
  refuseSharedDrives(recordedDrives, others);
  const { id, directory } = await makeDirectory(records.directory);
  const files = machineFiles(directory);
  const formatted = await claimDisk({ host, files, workload, signal });
  const config: VmConfig = {
    spec,
    id,
    directory,
    vsock: workload !== undefined,
    drives: vmDrives(files, workload, hostDrives),
    user,
    ...vmNetwork(network?.plan),
  };
  const plan = vmm.plan(config);
  const cgroups = cgroupsFor(host, request, id);
  const record: MachineRecord = {
    version: 1,
    id,
    phase: "starting",
    creator: await ownIdentity(),
    labels: { ...request.labels },
    madeFor: request.madeFor,
    uses: {
      image: workload?.imagePath,
      kernel: spec.vmlinuxPath,
      initramfs: spec.initramfsPath,
      supervisor: host.shimPath,
    },
    vmm: { kind: vmm.kind, version: vmm.version, acceleration: vmm.acceleration },
    vcpuCount: spec.vcpuCount,
    memSizeMib: spec.memSizeMib,
    vsockPath: plan.vsockPath,
    startedPath: plan.startedPath,
    user,
    drives: recordedDrives,
    network: network?.plan,
    cgroups: [...(cgroups[0]?.directories ?? [])],
    supervisorCgroups: [...(cgroups[1]?.directories ?? [])],
    sharedCores: request.cpu.cpuset === undefined ? request.cpu.sharedCores : undefined,
    createdAt: new Date().toISOString(),
  };
  await writeRecord(files.record, record);
  return { files, config, plan, record, cgroups, formatted };
}

/** Without a record nobody else removes the directory soon. */
async function claimDisk(options: {
  host: MachineHost;
  files: MachineFiles;
  workload: Workload | undefined;
  signal: AbortSignal;
}): Promise<boolean> {
  const { host, files, workload, signal } = options;
  if (workload === undefined) return false;
  try {
    return await claimScratchDisk({
      path: files.scratchDisk,
      sizeMib: workload.scratchSizeMib,
      spareDirectory: workload.spareDisksDirectory,
      machines: await host.records.directories(),
      minFreeMib: host.minFreeMib,
      signal,
    });
  } catch (error) {
    await rm(files.directory, { recursive: true, force: true });
    throw error;
  }
}

function hostDrivesOf({ spec, drives = [] }: MachineRequest): HostDrive[] {
  return (spec.options.drives ?? []).map((options, index) => {
    const file = drives[index];
    if (file === undefined) throw new TypeError(`drive ${options.drive_id} is not open`);
    return { options, file };
  });
}

/** In the order in which the guest finds them. */
function vmDrives(files: MachineFiles, workload: Workload | undefined, hostDrives: readonly HostDrive[]): Drive[] {
  const ofHost = toDrives(files.directory, hostDrives);
  if (workload === undefined) return ofHost;
  return [
    { path: workload.imagePath, readOnly: true },
    { path: files.scratchDisk, readOnly: false, sizeBytes: workload.scratchSizeMib * 1024 * 1024 },
    ...ofHost,
  ];
}

/** The VM's and its supervisor's; none on a host without cgroups. */
function cgroupsFor(host: MachineHost, request: MachineRequest, id: string): MachineCgroup[] {
  const { cgroups: settings } = host;
  if (settings === undefined) return [];
  const { memSizeMib } = request.spec;
  const memoryMib = memSizeMib + host.vmm.overheadMib(memSizeMib);
  const hugePagesMib = request.spec.options.machineConfig?.huge_pages === "2M" ? memSizeMib : 0;
  return [
    MachineCgroup.ofVm({ settings, id, cpu: request.cpu, memoryMib, hugePagesMib }),
    MachineCgroup.ofSupervisor({ settings, id }),
  ];
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
