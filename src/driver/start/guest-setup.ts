// The guest's configuration before its task starts: the job's container settings, and the VM's network.
import type { GuestSetup, ProcessSpec } from "../../guest/setup.ts";
import type { MachineRecord } from "../../machine/records/manifest.ts";
import { guestInterface } from "../../network/guest-interface.ts";
import type { ContainerSettings } from "../config/task/container.ts";
import type { TaskConfig } from "../nomad-driver.ts";
import { ownAddress } from "../task/vm-attributes.ts";
import { etcHosts, etcResolvConf } from "./etc-files.ts";
import { resolveExtraHosts } from "./task-network.ts";

/** Nomad's environment names them. They are empty folders as long as the host does not share its own. */
const nomadDirectories = ["/alloc", "/local", "/secrets"] as const;

/** Fails with ConfigError. */
export async function guestSetup(options: {
  config: TaskConfig;
  container: ContainerSettings;
  process: ProcessSpec;
  record: Pick<MachineRecord, "id" | "network">;
}): Promise<GuestSetup> {
  const { config, container, process, record } = options;
  const { network: plan } = record;
  const hostname = container.hostname ?? record.id;
  return {
    cgroupName: `${config.allocId}.${config.name.replaceAll("/", "_")}.scope`,
    hostname,
    etcHosts: etcHosts({
      hostname,
      ownAddress: ownAddress(plan),
      extraHosts: resolveExtraHosts(container.extraHosts, plan),
    }),
    etcResolvConf: await etcResolvConf({ dns: config.dns, taskDns: container.dns }),
    directories: nomadDirectories,
    process,
    privileged: container.privileged,
    unmasked: container.unmasked,
    readOnlyRoot: container.readOnlyRoot,
    shmSizeBytes: container.shmSizeBytes,
    tmpfsMounts: container.tmpfsMounts,
    devices: container.devices,
    sysctls: container.sysctls,
    pidsLimit: container.pidsLimit,
    oomWatch: container.oomWatch,
    init: container.init,
    network: plan && guestInterface(plan),
  };
}
