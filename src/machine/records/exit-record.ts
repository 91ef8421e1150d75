// The supervisor's file about the end of its VM (crates/shim/src/vm/record.rs). It is on the disk before any caller
// learns of the end.
import * as v from "valibot";
import type { HostPort } from "../../network/host/port-holder.ts";
import { printable } from "../../system/error.ts";
import { readJson } from "./read-json.ts";

/** The supervisor's own sentences with a program's last words have some 600. */
const maxErrorChars = 2_000;

const exitSchema = v.object({
  vmm: v.nullable(v.object({ exit_code: v.number(), signal: v.number() })),
  task: v.nullable(
    v.object({
      exit_code: v.number(),
      signal: v.number(),
      oom_killed: v.boolean(),
      oom_kills: v.number(),
      started_at_unix_ns: v.number(),
      finished_at_unix_ns: v.number(),
    }),
  ),
  error: v.string(),
  helper: v.string(),
  // A supervisor of an older driver writes none.
  code: v.optional(v.string(), ""),
  /** Absent in the records of older supervisors. */
  port_in_use: v.nullish(v.object({ protocol: v.picklist(["tcp", "udp"]), address: v.string(), port: v.number() })),
});

/** The reasons for which a supervisor ends a VM by itself. */
export type SupervisorCode = "log_fifo" | "supervisor_rights";

const supervisorCodes: ReadonlySet<string> = new Set<SupervisorCode>(["log_fifo", "supervisor_rights"]);

/** The VM has ended and took its task along. */
export interface VmEnd {
  readonly kind: "error";
  /** Undefined until the cause has been examined. */
  readonly code?: string | undefined;
  readonly reason: string;
  /** The VMM's end; undefined if nobody saw it. */
  readonly vmm?: { readonly exitCode: number; readonly signal: number } | undefined;
  /** The process beside the VMM whose end ended the VM; its last output is in the reason. */
  readonly helper?: string | undefined;
  /** The published port that another program of the host has; the VM was not started then. */
  readonly portInUse?: HostPort | undefined;
}

/** The task's own exit, as its guest reported it. */
export interface TaskEnd {
  readonly kind: "task";
  /** 0 to 255. */
  readonly exitCode: number;
  /** 0, or the signal that ended the task. */
  readonly signal: number;
  readonly oomKilled: boolean;
  /** Processes of the task, the main one included, that the guest's kernel killed because memory ran out. */
  readonly oomKills: number;
}

export type RecordedExit = TaskEnd | VmEnd;

/** The end of a VM's task. "killed": the end of the VM was wanted, and the guest reported none before it. */
export type MachineExit = RecordedExit | { readonly kind: "killed" };

/** Undefined while there is no record. */
export async function readExitRecord(path: string): Promise<RecordedExit | undefined> {
  const record = await readJson(path, exitSchema);
  if (record === undefined) return undefined;
  const { task, vmm, helper } = record;
  const error = printable(record.error, maxErrorChars);
  if (task === null) {
    const code = supervisorCodes.has(record.code) ? record.code : undefined;
    return {
      kind: "error",
      code,
      reason: code === undefined ? error : `${error} (${code})`,
      vmm: vmm === null ? undefined : { exitCode: vmm.exit_code, signal: vmm.signal },
      helper: helper === "" ? undefined : helper,
      portInUse: record.port_in_use ?? undefined,
    };
  }
  const { exit_code: exitCode, signal, oom_killed: oomKilled, oom_kills: oomKills } = task;
  return { kind: "task", exitCode, signal, oomKilled, oomKills };
}
