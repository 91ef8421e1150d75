// The VM's manifest on disk: everything that a later driver process needs to take over or remove the VM, and nothing
// that can be derived.
import * as v from "valibot";
import { networkPlanSchema } from "../../network/plan/network-plan.ts";
import { writeFileAtomically } from "../../system/files.ts";
import { readJson } from "./read-json.ts";

const identity = v.object({ pid: v.number(), startTime: v.string() });

const user = v.object({ uid: v.number(), gid: v.number() });

/** A disk of the host beside the VM's own. */
const hostDriveSchema = v.object({
  /** Without links. */
  path: v.string(),
  readOnly: v.boolean(),
  /** The file or the device itself, since it can have several names: `file DEV:INO` or `device RDEV`. */
  identity: v.string(),
});

export type HostDriveRecord = Readonly<v.InferOutput<typeof hostDriveSchema>>;

const recordSchema = v.object({
  version: v.literal(1),
  id: v.string(),
  /**
   * "starting" until the workload runs; "killed" as soon as the driver is about to kill it; "ending" while the driver removes the
   * VM. If the `creator` of a VM in "starting" or "ending" is gone, the next driver process removes it.
   */
  phase: v.picklist(["starting", "running", "killed", "ending"]),
  /** The process that starts the VM, then the one that ends it. */
  creator: identity,
  shim: v.optional(identity),
  /** The owner finds the VM by them; this folder never reads them. */
  labels: v.record(v.string(), v.string()),
  /** The VM's purpose in the owner's words, for an error that names this VM: "task "db" in allocation a1". */
  madeFor: v.string(),
  /** Files that the VM shares with others and that must stay as long as it lives. */
  uses: v.object({
    /** Undefined for a VM without a task. */
    image: v.optional(v.string()),
    kernel: v.string(),
    initramfs: v.string(),
    /** The supervisor's program. */
    supervisor: v.string(),
  }),
  vmm: v.object({ kind: v.string(), version: v.string(), acceleration: v.string() }),
  vcpuCount: v.number(),
  memSizeMib: v.number(),
  vsockPath: v.string(),
  /** The user of a jailed VMM, taken as long as this record exists. */
  user: v.optional(user),
  /** A file that appears once the VMM has been started, if another program (the jailer) starts it. */
  startedPath: v.optional(v.string()),
  drives: v.array(hostDriveSchema),
  /** The directories of the VM's cgroup. */
  cgroups: v.array(v.string()),
  /** The same of its supervisor's. A driver that gave it none left the supervisor in the agent's. */
  supervisorCgroups: v.optional(v.array(v.string()), []),
  /** The directory of the cgroup whose cores the VM shares. Undefined for a VM with cores of its own, or on all. */
  sharedCores: v.optional(v.string()),
  /** Undefined: loopback only. */
  network: v.optional(networkPlanSchema),
  createdAt: v.string(),
});

export type MachineRecord = Readonly<v.InferOutput<typeof recordSchema>>;

/** Not forced to the disk: a VM does not outlive the host's kernel, whose page cache outlives every process. */
export async function writeRecord(path: string, record: MachineRecord): Promise<void> {
  await writeFileAtomically({ path, content: `${JSON.stringify(record, undefined, 2)}\n` });
}

/** Undefined if there is none, or it is of no version that this driver reads. */
export async function readRecord(path: string): Promise<MachineRecord | undefined> {
  return await readJson(path, recordSchema);
}

/** For a VM whose plan is void: nothing of its network is to be removed. */
export function withoutNetwork(record: MachineRecord): MachineRecord {
  const { network: _, ...rest } = record;
  return rest;
}
