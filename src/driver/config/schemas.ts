// What Nomad accepts in our two `config` blocks. Values are declared `any` and checked by us (config-values.ts says why);
// unknown keys are refused by Nomad itself, which names them. Keys may be added, never removed or retyped: Nomad parses
// a running task's config against the newest schema when an agent restarts, and kills the task when that fails.

import { attr, blockMap, type HclSpec, object } from "./hcl-spec.ts";
import { jailerSchema } from "./plugin/jailer.ts";
import { pluginNetworkSchema } from "./plugin/network.ts";
import { containerSchema } from "./task/container.ts";
import { cpuSchema } from "./task/cpu.ts";
import { imageOptionSpecs } from "./task/image.ts";
import { networkSchema } from "./task/network.ts";
import { vmSchema } from "./task/vm.ts";

export const pluginConfigSchema: HclSpec = object(
  attr("vmlinux_path", "any"),
  attr("rootfs_base_path", "any"),
  attr("vmm", "any"),
  attr("firecracker_path", "any"),
  attr("jailer_path", "any"),
  jailerSchema,
  attr("qemu_path", "any"),
  attr("allowed_host_paths", "any"),
  pluginNetworkSchema,
  // Inside labelled blocks "any" makes Nomad panic (hcldec's BlockMapSpec).
  blockMap("registry", ["host"], object(attr("mirrors", "list(string)"), attr("plain_http", "bool"))),
);

export const taskConfigSchema: HclSpec = object(
  ...imageOptionSpecs,
  attr("vpu_count", "any"),
  attr("vcpu_count", "any"),
  attr("mem_size", "any"),
  attr("command", "any"),
  attr("args", "any"),
  attr("env", "any"),
  attr("entrypoint", "any"),
  attr("work_dir", "any"),
  ...containerSchema,
  ...cpuSchema,
  ...vmSchema,
  ...networkSchema,
);
