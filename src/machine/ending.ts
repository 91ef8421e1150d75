// Explains, with a code and a sentence, why a VM ended without its task's own report. The guest's output is a hint and
// stays text: a hostile guest can at most misname its own end.

import { oomKills } from "../system/cgroups.ts";
import { printable } from "../system/error.ts";
import { exists } from "../system/files.ts";
import { fileEnd } from "./log-tail.ts";
import type { MachineFiles } from "./records/files.ts";
import type { MachineRecord } from "./records/manifest.ts";

export type EndingCode =
  | "guest_panic"
  | "guest_restarted"
  | "helper_ended"
  | "vmm_killed"
  | "vmm_out_of_memory"
  | "vmm_failed"
  | "vmm_not_started"
  | "jailer_failed"
  | "supervisor_lost";

export interface VmmExit {
  readonly exitCode: number;
  readonly signal: number;
}

export interface Ending {
  readonly code: EndingCode;
  readonly summary: string;
}

const sigkill = 9;
const consoleBytes = 32 * 1024;

export async function explainEnding(options: {
  vmm: VmmExit | undefined;
  /** The process beside the VMM that ended first; the supervisor has killed the VMM then. */
  helper?: string | undefined;
  record: MachineRecord;
  files: MachineFiles;
}): Promise<Ending> {
  const { vmm, helper, record, files } = options;
  if (helper !== undefined) {
    const why = (await oomKills(record.cgroups)) > 0 ? "; the VM's cgroup had no memory left" : "";
    return { code: "helper_ended", summary: `the VM lost its ${helper} process, which it cannot run without${why}` };
  }
  if (vmm === undefined) return { code: "vmm_not_started", summary: "the VM was not started" };
  if (vmm.signal === sigkill && (await oomKills(record.cgroups)) > 0) {
    return {
      code: "vmm_out_of_memory",
      summary: "the host's kernel killed the VMM, whose cgroup had no memory left; the task itself is not to blame",
    };
  }
  if (vmm.signal !== 0) return { code: "vmm_killed", summary: `the VMM was killed by signal ${vmm.signal}` };
  if (vmm.exitCode !== 0) {
    const { startedPath } = record;
    if (startedPath !== undefined && !(await exists(startedPath))) {
      return { code: "jailer_failed", summary: "the jailer failed before it started the VMM" };
    }
    return { code: "vmm_failed", summary: `the VMM failed with exit status ${vmm.exitCode}` };
  }
  const panic = /Kernel panic - not syncing: ([^\r\n]{1,200})/.exec(await fileEnd(files.vmmLog, consoleBytes))?.[1];
  if (panic !== undefined) return { code: "guest_panic", summary: `the guest's kernel panicked: ${printable(panic)}` };
  return { code: "guest_restarted", summary: "the guest ended itself without reporting how its task ended" };
}
