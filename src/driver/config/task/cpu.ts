// How much of the host's CPUs a task may take: docker's keys.

import { attr, type NamedSpec } from "../hcl-spec.ts";
import { type ConfigMap, optionalBoolean } from "../values.ts";

export interface CpuSettings {
  /** `resources.cpu` is an upper limit too, not only a weight. */
  readonly hardLimit: boolean;
}

export const cpuSchema: readonly NamedSpec[] = [attr("cpu_hard_limit", "any")];

/** Fails with ConfigError. */
export function parseCpu(config: ConfigMap): CpuSettings {
  return { hardLimit: optionalBoolean(config, "cpu_hard_limit") ?? false };
}
