// The VM's manifest on disk: all that a later driver process needs to know it again, and nothing that can be derived.
import { readFile } from "node:fs/promises";
import * as v from "valibot";
import { networkPlanSchema } from "../../network/plan/network-plan.ts";
import { writeFileAtomically } from "../../system/files.ts";

const identity = v.object({ pid: v.number(), startTime: v.string() });

const owner = v.object({ uid: v.number(), gid: v.number() });

/** A disk of the host beside the VM's own. */
const hostDriveSchema = v.object({
  /** Without links. */
  path: v.string(),
  readOnly: v.boolean(),
  /** Of the file or the device, whatever its names. */
  identity: v.string(),
  /** 0 of a device. */
  sizeBytes: v.number(),
  /** Whom it belongs to when no VM has it. */
  owner,
});

export type HostDriveRecord = Readonly<v.InferOutput<typeof hostDriveSchema>>;

const recordSchema = v.object({
  version: v.literal(1),
  id: v.string(),
  /** "starting" until the workload runs, "ending" while the VM is taken away: one found so whose `creator` is gone is thrown away. */
  phase: v.picklist(["starting", "running", "ending"]),
  /** The process that starts the VM, then the one that ends it. */
  creator: identity,
  shim: v.optional(identity),
  /** What the owner wants to find it by. */
  labels: v.record(v.string(), v.string()),
  vmm: v.object({ kind: v.string(), version: v.string(), acceleration: v.string() }),
  vcpuCount: v.number(),
  memSizeMib: v.number(),
  vsockPath: v.string(),
  /** Of a jailed VMM; taken as long as this record is there. */
  user: v.optional(owner),
  /** Where the VMM is started by another program (the jailer): a file that is there from then on. */
  startedPath: v.optional(v.string()),
  /** Records of earlier versions don't have them. */
  drives: v.optional(v.array(hostDriveSchema), []),
  /** The directories of the VM's cgroup. */
  cgroups: v.optional(v.array(v.string()), []),
  /** Undefined: loopback only. */
  network: v.optional(networkPlanSchema),
  createdAt: v.string(),
});

export type MachineRecord = Readonly<v.InferOutput<typeof recordSchema>>;

/** Not forced to the disk: a VM does not outlive the host's kernel, whose page cache outlives every process. */
export async function writeRecord(path: string, record: MachineRecord): Promise<void> {
  await writeFileAtomically({ path, content: `${JSON.stringify(record, undefined, 2)}\n` });
}

/** Undefined when there is none or it is of no version that this driver reads. */
export async function readRecord(path: string): Promise<MachineRecord | undefined> {
  return parse(recordSchema, await readFile(path, "utf8").catch(() => undefined));
}

const shimStateSchema = v.object({
  shim_pid: v.number(),
  shim_start_time: v.pipe(v.union([v.number(), v.string()]), v.transform(String)),
  vmm_pid: v.number(),
  vmm_start_time: v.pipe(v.union([v.number(), v.string()]), v.transform(String)),
  /** The VMM and its helpers. */
  processes: v.optional(
    v.array(
      v.object({
        name: v.string(),
        pid: v.number(),
        start_time: v.pipe(v.union([v.number(), v.string()]), v.transform(String)),
      }),
    ),
    [],
  ),
});

export type ShimState = v.InferOutput<typeof shimStateSchema>;

export async function readShimState(path: string): Promise<ShimState | undefined> {
  return parse(shimStateSchema, await readFile(path, "utf8").catch(() => undefined));
}

const exitSchema = v.object({
  vmm: v.nullish(v.object({ exit_code: v.number(), signal: v.number() })),
  task: v.nullish(
    v.object({
      exit_code: v.number(),
      signal: v.number(),
      oom_killed: v.boolean(),
      // Records of earlier versions don't have it.
      oom_kills: v.optional(v.number(), 0),
      started_at_unix_ns: v.number(),
      finished_at_unix_ns: v.number(),
    }),
  ),
  error: v.optional(v.string(), ""),
  // Supervisors of earlier versions don't have it.
  helper: v.optional(v.string(), ""),
});

/** How a VM's task ended: its own exit, or why there is none. */
export type MachineExit =
  | {
      readonly kind: "task";
      /** 0 to 255. */
      readonly exitCode: number;
      /** 0, or the signal that ended the task. */
      readonly signal: number;
      readonly oomKilled: boolean;
      /** Processes of the task, the main one included, that the guest's kernel killed for want of memory. */
      readonly oomKills: number;
    }
  | {
      readonly kind: "error";
      /** Undefined where nobody has looked into it yet. */
      readonly code?: string | undefined;
      readonly reason: string;
      /** How the VMM ended; undefined when it was never seen to. */
      readonly vmm?: { readonly exitCode: number; readonly signal: number } | undefined;
      /** The process beside the VMM whose end ended the VM; its last output is in the reason. */
      readonly helper?: string | undefined;
    };

/** Undefined while there is no record. */
export async function readExitRecord(path: string): Promise<MachineExit | undefined> {
  const record = parse(exitSchema, await readFile(path, "utf8").catch(() => undefined));
  if (record === undefined) return undefined;
  if (record.task === null || record.task === undefined) {
    const vmm = record.vmm ?? undefined;
    return {
      kind: "error",
      reason: record.error,
      vmm: vmm && { exitCode: vmm.exit_code, signal: vmm.signal },
      helper: record.helper === "" ? undefined : record.helper,
    };
  }
  const { exit_code: exitCode, signal, oom_killed: oomKilled, oom_kills: oomKills } = record.task;
  return { kind: "task", exitCode, signal, oomKilled, oomKills };
}

function parse<S extends v.GenericSchema>(schema: S, text: string | undefined): v.InferOutput<S> | undefined {
  if (text === undefined) return undefined;
  try {
    const result = v.safeParse(schema, JSON.parse(text));
    return result.success ? result.output : undefined;
  } catch {
    return undefined;
  }
}
