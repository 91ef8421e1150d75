// QEMU's microvm machine: the same virtio-mmio devices as Firecracker, found through the same ACPI ids, with KVM where it
// works and software emulation elsewhere. vsock comes from the rust-vmm program vhost-device-vsock, whose unix socket speaks
// Firecracker's `CONNECT port`. QEMU starts the guest by itself.
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { emulatedCpu, vsockWindowBytes } from "../../system/tuning.ts";
import { driveMounts, makeDrivePlaces } from "../host-drives.ts";
import type { IoLimits } from "../machine-spec.ts";
import type { Drive, LaunchPlan, VmConfig, Vmm, VmProcess } from "../vmm.ts";
import { QemuJail, runDirectory } from "./qemu-jail.ts";

export interface QemuVmmOptions {
  readonly qemuPath: string;
  readonly vhostDeviceVsockPath: string;
  readonly version: string;
  readonly acceleration: "kvm" | "emulation";
  /** The host's time stamp counter in kHz. */
  readonly tscKhz: number;
  /** Otherwise QEMU and its vsock device are root on the host. */
  readonly jailed: boolean;
}

const guestCid = "3";
const namespaces = ["pid", "net", "ipc", "uts", "cgroup"] as const;
const tapDescriptor = (index: number): number => 100 + index;
/** An emulating QEMU keeps translated code up to this size, then begins anew. Its own default is up to 1 GiB. */
const translatedCodeMib = 512;

export class QemuVmm implements Vmm {
  readonly kind = "qemu";
  readonly opensTaps = false;
  readonly version: string;
  readonly acceleration: "kvm" | "emulation";
  readonly #options: QemuVmmOptions;

  constructor(options: QemuVmmOptions) {
    this.#options = options;
    this.version = options.version;
    this.acceleration = options.acceleration;
  }

  get jailed(): boolean {
    return this.#options.jailed;
  }

  plan(config: VmConfig): LaunchPlan {
    const jail = this.#jail(config);
    return {
      vsockPath: vsockPath(config),
      processes: [
        ...(config.vsock ? [this.#vsockBackend(config, jail)] : []),
        {
          name: "vmm",
          argv: [this.#options.qemuPath, ...this.#arguments(config, jail)],
          outputPath: join(config.directory, "vmm.log"),
          namespaces,
          taps: (config.networkInterfaces ?? []).map(({ tap, netns }, index) => ({
            tap,
            netns,
            descriptor: tapDescriptor(index),
          })),
          drives: driveMounts(config),
          confinement: jail?.vmm,
        },
      ],
    };
  }

  #jail(config: VmConfig): QemuJail | undefined {
    const { jailed, qemuPath, vhostDeviceVsockPath } = this.#options;
    if (!jailed) return undefined;
    if (config.user === undefined) throw new TypeError("a jailed VM needs a user");
    const programs = { qemu: qemuPath, vsockDevice: vhostDeviceVsockPath };
    return new QemuJail({ config, user: config.user, programs, kvm: this.acceleration === "kvm" });
  }

  /** Measured: QEMU itself has some 60 MiB, and a small emulated guest 110 with its translated code. */
  overheadMib(memSizeMib: number): number {
    const translated = this.acceleration === "kvm" ? 0 : translatedCodeMib;
    return 256 + translated + Math.ceil(memSizeMib / 64);
  }

  /** Fails with JailError. */
  async prepare(config: VmConfig): Promise<void> {
    if (config.vsock) await mkdir(runDirectory(config), { mode: 0o700 });
    await this.#jail(config)?.prepare();
    await makeDrivePlaces(driveMounts(config));
  }

  /** QEMU has started the guest, which cannot run a task yet. Fails with JailError. */
  async configure({ config }: { config: VmConfig }): Promise<void> {
    // Its other socket is QEMU's, and vanishes when QEMU has connected to it.
    await this.#jail(config)?.seal([vsockPath(config)]);
  }

  async start(): Promise<void> {}

  #vsockBackend(config: VmConfig, jail: QemuJail | undefined): VmProcess {
    return {
      name: "vsock",
      argv: [
        this.#options.vhostDeviceVsockPath,
        ...["--guest-cid", guestCid],
        ...["--socket", backendPath(config)],
        ...["--uds-path", vsockPath(config)],
        ...["--tx-buffer-size", `${vsockWindowBytes}`],
      ],
      outputPath: join(config.directory, "vsock.log"),
      readyPath: backendPath(config),
      namespaces,
      confinement: jail?.vsockDevice,
    };
  }

  #arguments(config: VmConfig, jail: QemuJail | undefined): string[] {
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
      ...["-accel", emulated ? `tcg,thread=multi,tb-size=${translatedCodeMib}` : "kvm"],
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
      ...(jail?.drives.args ?? []),
      ...config.drives.flatMap(({ path, readOnly }, index) =>
        diskArguments({ path: jail?.drives.names[index] ?? path, readOnly }, index, spec.ioLimits),
      ),
      ...(config.networkInterfaces ?? []).flatMap(({ guestMac }, index) => [
        ...["-netdev", `tap,id=net${index},fd=${tapDescriptor(index)}`],
        ...["-device", `virtio-net-device,netdev=net${index},mac=${guestMac}`],
      ]),
      ...["-device", "virtio-rng-device"],
      ...(config.vsock
        ? [
            "-chardev",
            `socket,id=vsock,path=${backendPath(config)}`,
            "-device",
            "vhost-user-vsock-device,chardev=vsock",
          ]
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
    // As Firecracker's disks are. A guest that discards would give space back that the driver has set aside for it.
    ...["-device", `virtio-blk-device,drive=${node},discard=off,write-zeroes=off${readOnly ? "" : ",werror=report"}`],
  ];
}

function throttleLimits({ bytesPerSecond, opsPerSecond }: IoLimits): Record<string, number> | undefined {
  const limits = {
    ...(bytesPerSecond === undefined ? {} : { "bps-total": bytesPerSecond }),
    ...(opsPerSecond === undefined ? {} : { "iops-total": opsPerSecond }),
  };
  return Object.keys(limits).length === 0 ? undefined : limits;
}

const vsockPath = (config: VmConfig): string => join(runDirectory(config), "v.sock");
const backendPath = (config: VmConfig): string => join(runDirectory(config), "vu.sock");
