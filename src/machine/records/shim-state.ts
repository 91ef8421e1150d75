// The supervisor's file about the processes of its VM (crates/shim/src/vm/state.rs). It exists from the VMM's start to
// the VM's removal.
import * as v from "valibot";
import { readJson } from "./read-json.ts";

const startTime = v.pipe(v.number(), v.transform(String));

const shimStateSchema = v.object({
  shim_pid: v.number(),
  shim_start_time: startTime,
  vmm_pid: v.number(),
  vmm_start_time: startTime,
  /** The VMM and its helpers. */
  processes: v.array(v.object({ name: v.string(), pid: v.number(), start_time: startTime })),
});

export type ShimState = v.InferOutput<typeof shimStateSchema>;

/** Undefined until the VM has processes. */
export async function readShimState(path: string): Promise<ShimState | undefined> {
  return await readJson(path, shimStateSchema);
}
