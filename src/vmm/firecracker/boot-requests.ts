// From a VM's configuration to the calls that make Firecracker build it. Everything that names a file of the host goes
// through `vmmPath`, the one place that knows how the VMM sees it.
import type { VmConfig } from "../vmm.ts";
import type { ApiRequest } from "./api-client.ts";
import { deviceRequests, driveRequests, interfaceRequests, loggingRequests, mmdsRequests } from "./option-requests.ts";

export interface BootRequests {
  /** Lanes may be sent side by side; within a lane the order counts: the guest finds its disks in it. */
  readonly lanes: readonly (readonly ApiRequest[])[];
}

/** Only once every other request was accepted. */
export const startRequest: ApiRequest<"PUT /actions"> = {
  operation: "PUT /actions",
  body: { action_type: "InstanceStart" },
};

const guestCid = 3;

export function bootRequests(options: {
  config: VmConfig;
  vsockPath: string;
  /** A path of the host as the VMM sees it. */
  vmmPath: (hostPath: string) => string;
}): BootRequests {
  const { config, vmmPath } = options;
  const { spec } = config;
  const machine: ApiRequest[] = [
    {
      operation: "PUT /machine-config",
      body: { ...spec.options.machineConfig, vcpu_count: spec.vcpuCount, mem_size_mib: spec.memSizeMib },
    },
    {
      operation: "PUT /boot-source",
      body: {
        kernel_image_path: vmmPath(spec.vmlinuxPath),
        initrd_path: vmmPath(spec.initramfsPath),
        // Always our own: the default holds `nomodule`, which no modular kernel survives.
        boot_args: [...kernelArguments, ...spec.kernelArguments].join(" "),
      },
    },
    ...deviceRequests(config),
  ];
  const drives = driveRequests({ config, vmmPath });
  const interfaces = interfaceRequests(config);
  const others: ApiRequest[] = loggingRequests({ config, vmmPath });
  if (config.vsock) {
    others.push({ operation: "PUT /vsock", body: { guest_cid: guestCid, uds_path: vmmPath(options.vsockPath) } });
  }
  return {
    lanes: [machine, drives, [...interfaces, ...mmdsRequests(config)], others].filter((lane) => lane.length > 0),
  };
}

/**
 * `reboot=k` ends Firecracker when the guest reboots. The i8042 options spare the probing of a keyboard, `nr_uarts` that of
 * serial ports that are not there; the watchdog would watch a CPU that the host schedules.
 */
const kernelArguments = [
  "console=ttyS0",
  "8250.nr_uarts=1",
  "reboot=k",
  "panic=1",
  "i8042.noaux",
  "i8042.nomux",
  "i8042.dumbkbd",
  "swiotlb=noforce",
  "cryptomgr.notests",
  "nowatchdog",
  "random.trust_cpu=on",
];
