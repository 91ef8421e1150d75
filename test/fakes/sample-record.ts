// A VM's record for tests that look at one part of it.
import type { MachineRecord } from "../../src/machine/records/manifest.ts";

export const sampleRecord: MachineRecord = {
  version: 1,
  id: "01234567",
  phase: "starting",
  creator: { pid: 1, startTime: "1" },
  labels: {},
  madeFor: "a test",
  uses: { kernel: "/boot/vmlinux", initramfs: "/boot/initramfs", supervisor: "/bin/litegix-shim" },
  vmm: { kind: "firecracker", version: "1.16.1", acceleration: "kvm" },
  vcpuCount: 1,
  memSizeMib: 256,
  vsockPath: "",
  drives: [],
  cgroups: [],
  supervisorCgroups: [],
  createdAt: "",
};
