// What an inspection tells of a VM, by the names that Nomad's driver attributes and the command line use.
import type { MachineRecord } from "../../machine/records/manifest.ts";
import { networkAttributes } from "../start/task-network.ts";

export async function vmAttributes(record: MachineRecord): Promise<Record<string, string>> {
  return {
    vm: record.id,
    vmm: `${record.vmm.kind} ${record.vmm.version}`,
    acceleration: record.vmm.acceleration,
    vcpu_count: `${record.vcpuCount}`,
    mem_size: `${record.memSizeMib}`,
    ...(await networkAttributes(record.network)),
  };
}
