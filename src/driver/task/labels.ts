// The labels of a task's VM: the facts about the task for a later plugin process, kept in the VM's record.
import * as v from "valibot";
import type { MachineRecord } from "../../machine/records/manifest.ts";

const labelsSchema = v.object({
  taskId: v.string(),
  allocId: v.string(),
  taskName: v.string(),
  /** The image's; empty for docker's default, SIGTERM. */
  stopSignal: v.string(),
  startedAt: v.pipe(
    v.string(),
    v.transform((text) => new Date(text)),
    v.date(),
  ),
});

export type TaskLabels = Readonly<v.InferOutput<typeof labelsSchema>>;

export function encodeLabels({ startedAt, ...others }: TaskLabels): Record<keyof TaskLabels, string> {
  return { ...others, startedAt: startedAt.toISOString() };
}

/** Undefined if the VM was not made for a task. */
export function taskLabels(record: Pick<MachineRecord, "labels">): TaskLabels | undefined {
  const result = v.safeParse(labelsSchema, record.labels);
  return result.success ? result.output : undefined;
}

/** For errors and logs that name a VM by its task. */
export function describeTask({ taskName, allocId }: Pick<TaskLabels, "taskName" | "allocId">): string {
  return `task ${JSON.stringify(taskName)} in allocation ${allocId}`;
}
