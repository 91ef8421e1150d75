// QEMU's microvm machine: the same virtio-mmio devices as Firecracker, found through the same ACPI ids, with KVM where it
// works and software emulation elsewhere. vsock comes from the rust-vmm program vhost-device-vsock, whose unix socket speaks
// Firecracker's `CONNECT port`. QEMU starts the guest by itself, so nothing is left to do after the processes run.
import { join } from "node:path";
import { emulatedCpu, vsockWindowBytes } from "../../system/tuning.ts";
import { driveMounts, makeDrivePlaces } from "../host-drives.ts";
import type { IoLimits } from "../machine-spec.ts";
import type { Drive, LaunchPlan, VmConfig, Vmm, VmProcess } from "../vmm.ts";

export interface QemuVmmOptions {
  readonly qemuPath: string;
  readonly vhostDeviceVsockPath: string;
  readonly version: string;
  readonly acceleration: "kvm" | "emulation";
  /** The host's time stamp counter in kHz. */
  readonly tscKhz: number;
}

const guestCid = "3";
const namespaces = ["pid", "net", "ipc", "uts", "cgroup"] as const;
const tapDescriptor = (index: number): number => 100 + index;

export class QemuVmm implements Vmm {
  readonly kind = "qemu";
  readonly jailed = false;
  readonly opensTaps = false;
  readonly version: string;
  readonly acceleration: "kvm" | "emulation";
  readonly #options: QemuVmmOptions;

  constructor(options: QemuVmmOptions) {
    this.#options = options;
    this.version = options.version;
    this.acceleration = options.acceleration;
  }

  plan(config: VmConfig): LaunchPlan {
    const vsockPath = join(config.directory, "v.sock");
    const backendPath = join(config.directory, "vu.sock");
    return {
      vsockPath,
      processes: [
        ...(config.vsock ? [this.#vsockBackend(config, backendPath, vsockPath)] : []),
        {
          name: "vmm",
          argv: [this.#options.qemuPath, ...this.#arguments(config, backendPath)],
          outputPath: join(config.directory, "vmm.log"),
          namespaces,
          taps: (config.networkInterfaces ?? []).map(({ tap, netns }, index) => ({
            tap,
            netns,
            descriptor: tapDescriptor(index),
          })),
          drives: driveMounts(config),
        },
      ],
    };
  }

  /** An emulating QEMU keeps translated code in memory, by no predictable rule. */
  overheadMib(memSizeMib: number): number | undefined {
    return this.acceleration === "kvm" ? 256 + Math.ceil(memSizeMib / 64) : undefined;
  }

  async prepare(config: VmConfig): Promise<void> {
    await makeDrivePlaces(driveMounts(config));
  }

  async configure(): Promise<void> {}

  async start(): Promise<void> {}

  #vsockBackend(config: VmConfig, backendPath: string, vsockPath: string): VmProcess {
    return {
      name: "vsock",
      argv: [
        this.#options.vhostDeviceVsockPath,
        ...["--guest-cid", guestCid],
        ...["--socket", backendPath],
        ...["--uds-path", vsockPath],
        ...["--tx-buffer-size", `${vsockWindowBytes}`],
      ],
      outputPath: join(config.directory, "vsock.log"),
      readyPath: backendPath,
      namespaces,
    };
  }

  #arguments(config: VmConfig, backendPath: string): string[] {
    const { spec } = config;
    const memory = `${spec.memSizeMib}M`;
    const emulated = this.acceleration === "emulation";
    const kernelArguments = [
      "console=ttyS0",
      "reboot=t",
      "panic=-1",
      // Under emulation the guest can't calibrate its clock against the emulated timer and hangs. The value must be the
      // host's true rate, since the guest reads the host's counter. All its processors read the same one, but the
      // kernel distrusts that by default. It would then have only the timer's ticks, which an idle processor must not
      // stop.
      ...(emulated ? [`tsc_early_khz=${this.#options.tscKhz}`, "tsc=reliable"] : []),
      ...spec.kernelArguments,
    ];
    return [
      ...["-M", "microvm,memory-backend=memory"],
      ...["-object", `memory-backend-memfd,id=memory,size=${memory},share=on`],
      ...["-accel", emulated ? "tcg,thread=multi" : "kvm"],
      ...["-cpu", emulated ? emulatedCpu : "host"],
      ...["-smp", `${spec.vcpuCount}`],
      ...["-m", memory],
      ...["-name", config.id],
      ...["-nodefaults", "-no-user-config", "-no-reboot"],
      ...["-display", "none"],
      ...["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"],
      ...["-serial", "stdio"],
      ...["-kernel", spec.vmlinuxPath],
      ...["-initrd", spec.initramfsPath],
      ...["-append", kernelArguments.join(" ")],
      ...config.drives.flatMap((drive, index) => diskArguments(drive, index, spec.ioLimits)),
      ...(config.networkInterfaces ?? []).flatMap(({ guestMac }, index) => [
        ...["-netdev", `tap,id=net${index},fd=${tapDescriptor(index)}`],
        ...["-device", `virtio-net-device,netdev=net${index},mac=${guestMac}`],
      ]),
      ...["-device", "virtio-rng-device"],
      ...(config.vsock
        ? ["-chardev", `socket,id=vsock,path=${backendPath}`, "-device", "vhost-user-vsock-device,chardev=vsock"]
        : []),
    ];
  }
}

/**
 * JSON rather than key=value text, so that a comma in a path does not begin an option. A write that fails because the host's disk
 * is full is an error for the guest; by default QEMU would stop the guest for good.
 */
function diskArguments({ path, readOnly }: Drive, index: number, limits: IoLimits | undefined): string[] {
  const node = `drive${index}`;
  const raw = { driver: "raw", "read-only": readOnly, file: { driver: "file", filename: path, locking: "off" } };
  const throttle = limits && throttleLimits(limits);
  const group = `limits${index}`;
  const blockdev =
    throttle === undefined
      ? { ...raw, "node-name": node }
      : { driver: "throttle", "node-name": node, "read-only": readOnly, "throttle-group": group, file: raw };
  return [
    ...(throttle === undefined
      ? []
      : ["-object", JSON.stringify({ "qom-type": "throttle-group", id: group, limits: throttle })]),
    ...["-blockdev", JSON.stringify(blockdev)],
    ...["-device", `virtio-blk-device,drive=${node}${readOnly ? "" : ",werror=report"}`],
  ];
}

function throttleLimits({ bytesPerSecond, opsPerSecond }: IoLimits): Record<string, number> | undefined {
  const limits = {
    ...(bytesPerSecond === undefined ? {} : { "bps-total": bytesPerSecond }),
    ...(opsPerSecond === undefined ? {} : { "iops-total": opsPerSecond }),
  };
  return Object.keys(limits).length === 0 ? undefined : limits;
}
