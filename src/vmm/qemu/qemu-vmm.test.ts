import assert from "node:assert/strict";
import { test } from "node:test";
import type { IoLimits } from "../machine-spec.ts";
import { QemuVmm } from "./qemu-vmm.ts";

const vmm = new QemuVmm({
  qemuPath: "/qemu",
  vhostDeviceVsockPath: "/vsock",
  version: "10",
  acceleration: "kvm",
  tscKhz: 1,
  jailed: false,
});

/** The values of an option on QEMU's command line. */
function valuesOf(name: string, ioLimits?: IoLimits): string[] {
  const { processes } = vmm.plan({
    id: "a",
    directory: "/vm",
    spec: {
      vcpuCount: 1,
      memSizeMib: 256,
      vmlinuxPath: "/k",
      initramfsPath: "/i",
      kernelArguments: [],
      options: {},
      ...(ioLimits === undefined ? {} : { ioLimits }),
    },
    vsock: false,
    drives: [
      { path: "/image,1", readOnly: true },
      { path: "/scratch", readOnly: false },
    ],
  });
  const argv = processes[0]?.argv ?? [];
  return argv.flatMap((word, index) => (argv[index - 1] === name ? [word] : []));
}

test("each disk has the host's limits, in a group of its own", () => {
  const limits = { bytesPerSecond: 5000, opsPerSecond: 10 };
  const groups = valuesOf("-object", limits).filter((text) => text.includes("throttle"));
  assert.deepEqual(
    groups.map((text) => JSON.parse(text) as unknown),
    [0, 1].map((index) => ({
      "qom-type": "throttle-group",
      id: `limits${index}`,
      limits: { "bps-total": 5000, "iops-total": 10 },
    })),
  );
  const [image] = valuesOf("-blockdev", limits).map((text) => JSON.parse(text) as Record<string, unknown>);
  assert.equal(image?.["throttle-group"], "limits0");
  assert.deepEqual(image?.["file"], {
    driver: "raw",
    "read-only": true,
    file: { driver: "file", filename: "/image,1", locking: "off" },
  });
});

test("without limits a disk is the file itself; a failed write does not stop the guest", () => {
  for (const none of [undefined, { bytesPerSecond: undefined, opsPerSecond: undefined }]) {
    assert.ok(valuesOf("-blockdev", none).every((text) => !text.includes("throttle")));
  }
  const disks = valuesOf("-device").filter((text) => text.startsWith("virtio-blk"));
  assert.deepEqual(disks, [
    "virtio-blk-device,drive=drive0,discard=off,write-zeroes=off",
    "virtio-blk-device,drive=drive1,discard=off,write-zeroes=off,werror=report",
  ]);
});
