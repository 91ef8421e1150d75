// Gives a VM its processes and starts its guest.
import { publishedPorts } from "../../network/plan/network-plan.ts";
import { Machine } from "../machine.ts";
import { writeRecord } from "../records/manifest.ts";
import { type CreatedMachine, type CreateMachineOptions, createMachine } from "./create-machine.ts";
import { openVmNetwork } from "./interface.ts";
import { spawnShim } from "./spawn-shim.ts";
import { undoBoot, undoCreation } from "./undo-machine.ts";

export interface BootedMachine {
  readonly machine: Machine;
  /** Resolves when the guest has its network, which it does not need to boot. A caller may leave a failure unhandled. */
  readonly networkOpen: Promise<void>;
}

/**
 * Creates a VM and starts its guest. Fails with MachineStartError or as createMachine does; then nothing of the VM is
 * left.
 */
export async function bootMachine(options: CreateMachineOptions): Promise<BootedMachine> {
  const created = await createMachine(options);
  const machine = await supervise(created, options);
  const { host, request, timeline } = options;
  const { vmm, records } = host;
  const { network } = request;
  const { config } = created;
  const signal = AbortSignal.any([options.signal, machine.ended]);
  let networkOpen = Promise.resolve();
  try {
    await vmm.configure({ config, signal });
    const away = vmm.opensTaps ? `/proc/${await machine.vmmPid()}/ns/net` : undefined;
    // The supervisor holds the published ports by now, so the rules take no port from a program of the host.
    networkOpen = openVmNetwork({ network, away, records, signal: options.signal });
    networkOpen.catch(() => undefined);
    await vmm.start({ config, signal });
    timeline.done("VMM configured, guest started");
    return { machine, networkOpen };
  } catch (error) {
    // It must not change the host's network once the VM's is removed.
    await Promise.allSettled([networkOpen]);
    throw await undoBoot({ machine, error, signal: options.signal });
  }
}

async function supervise(created: CreatedMachine, options: CreateMachineOptions): Promise<Machine> {
  const { files, record, plan } = created;
  const { host, request, timeline, signal } = options;
  try {
    const shim = await spawnShim({
      shimPath: host.shimPath,
      id: record.id,
      files,
      plan,
      stdoutPath: request.workload?.stdoutPath ?? "/dev/null",
      stderrPath: request.workload?.stderrPath ?? "/dev/null",
      logRoot: request.workload?.logRoot ?? "/",
      cgroups: record.cgroups,
      ownCgroups: record.supervisorCgroups,
      ports: record.network === undefined ? [] : publishedPorts(record.network),
      signal,
    });
    timeline.done("supervisor, VMM spawned");
    const supervised = { ...record, shim };
    await writeRecord(files.record, supervised);
    return Machine.adopt({ files, record: supervised }, host.records);
  } catch (error) {
    throw await undoCreation({ vm: created, records: host.records, error, signal });
  }
}
