// `inspect`: the VMs of this host by their records, for an operator. Nomad's own commands don't show a driver's facts.

import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { parsePluginConfig } from "../driver/config/plugin/plugin-config.ts";
import { hostDirectories } from "../driver/host/directories.ts";
import { taskLabels } from "../driver/task/labels.ts";
import { vmAttributes } from "../driver/task/vm-attributes.ts";
import { machineFiles } from "../machine/records/files.ts";
import type { MachineRecord } from "../machine/records/manifest.ts";
import { VmRecords } from "../machine/records/vm-records.ts";

export interface InspectOptions {
  readonly rootfsBasePath?: string;
  readonly json?: boolean;
}

/** `wanted`: the beginning of a VM's, an allocation's or a task's id; undefined: all VMs. Returns the exit status. */
export async function runInspect(wanted: string | undefined, options: InspectOptions): Promise<number> {
  let machines: string;
  try {
    machines = hostDirectories(parsePluginConfig({ rootfs_base_path: options.rootfsBasePath }).basePath).machines;
    // Only root may read it. A folder that can't be read must not pass for an empty one.
    await readdir(machines).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "ENOENT") throw error;
    });
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n`);
    return 1;
  }
  const all = await new VmRecords(machines).list();
  const found = all.filter((record) => wanted === undefined || matches(record, wanted));
  if (wanted !== undefined && found.length === 0) {
    const there = all.length === 0 ? "there is none" : `there are ${all.map(({ id }) => id).join(", ")}`;
    process.stderr.write(`no VM of "${wanted}" in ${machines}: ${there}\n`);
    return 1;
  }
  const shown = await Promise.all(found.map((record) => describe(record, machines)));
  process.stdout.write(options.json === true ? `${JSON.stringify(shown, undefined, 2)}\n` : shown.map(text).join("\n"));
  return 0;
}

function matches(record: MachineRecord, wanted: string): boolean {
  const labels = taskLabels(record);
  return [record.id, labels?.allocId, labels?.taskId].some((name) => name?.startsWith(wanted) ?? false);
}

async function describe(record: MachineRecord, machinesDirectory: string): Promise<Record<string, string>> {
  const { cgroups, user } = record;
  const labels = taskLabels(record);
  const directory = join(machinesDirectory, record.id);
  return {
    ...(await vmAttributes(record)),
    allocation: labels?.allocId ?? "",
    task: labels?.taskName ?? "",
    phase: record.phase,
    created_at: record.createdAt,
    ...(user === undefined ? {} : { user: `${user.uid}:${user.gid}` }),
    ...(cgroups.length === 0 ? {} : { cgroups: cgroups.join(" ") }),
    directory,
    console: machineFiles(directory).vmmLog,
  };
}

function text(attributes: Record<string, string>): string {
  const entries = Object.entries(attributes);
  const width = Math.max(...entries.map(([name]) => name.length)) + 2;
  return entries.map(([name, value]) => `${name.padEnd(width)}${value}\n`).join("");
}
