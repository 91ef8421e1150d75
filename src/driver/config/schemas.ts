// The keys of the two `config` blocks, in the documentation's order, and what Nomad accepts in them. Most values are declared
// `any` and checked by the driver (values.ts says why). Keys may be added, never removed or retyped: Nomad parses
// a running task's config against the newest schema when an agent restarts, and kills the task if that fails.
import type { HclSpec } from "./hcl-spec.ts";
import { pluginTable } from "./plugin/plugin-config.ts";
import { type Table, tableSchema } from "./table.ts";
import { containerTable } from "./task/container.ts";
import { imageTable } from "./task/image.ts";
import { networkTable } from "./task/network.ts";
import { processTable, sizeTable } from "./task/task-config.ts";
import { vmTable } from "./task/vm.ts";

/** By the title of their part in the documentation. */
export const taskTables = {
  Image: imageTable,
  Size: sizeTable,
  Process: processTable,
  Container: containerTable,
  Network: networkTable,
  "VM in Firecracker's words": vmTable,
} satisfies Readonly<Record<string, Table>>;

export const pluginConfigSchema: HclSpec = tableSchema(pluginTable);
export const taskConfigSchema: HclSpec = tableSchema(...Object.values(taskTables));
