// From the job's settings for its VM to the kind of VM: paths of the host that the job may name, its own kernel or initrd.
import { appendInitrd } from "../../boot/append-initrd.ts";
import { type BootFiles, prepareBoot } from "../../boot/prepare-boot.ts";
import { readAsset } from "../../system/assets.ts";
import type { HostFile } from "../../system/host-file.ts";
import { type MachineSpec, quietArguments } from "../../vmm/machine-spec.ts";
import type { ExtraDrive } from "../../vmm/vm-options.ts";
import { openAllowedPath } from "../config/host-paths.ts";
import type { PluginSettings } from "../config/plugin/plugin-config.ts";
import type { VmSettings } from "../config/task/vm.ts";
import type { ReadyHost } from "../host/inspect-host.ts";
import type { MachineSize } from "./machine-size.ts";
import { checkVmOptions } from "./vm-rules.ts";

/** A VM as the job wants it, with the disks of the host for it. */
export interface VmSetup {
  readonly spec: MachineSpec;
  /** In the order of the spec's. */
  readonly drives: readonly HostFile[];
}

const maxModuleBytes = 64 * 1024 * 1024;

interface SetUpOptions {
  readonly vm: VmSettings;
  readonly settings: PluginSettings;
  readonly host: ReadyHost;
  readonly size: MachineSize;
  readonly networkInterfaces: number;
  /** Closes the files of the host once the VM has them. */
  readonly opened: AsyncDisposableStack;
  readonly signal: AbortSignal;
}

/** Fails with ConfigError, KernelImageError or InitrdError. */
export async function setUpVm(options: SetUpOptions): Promise<VmSetup> {
  const { vm, settings, host, size, networkInterfaces, opened } = options;
  const allowHugePages = settings.allowHugePages || settings.allowOversize;
  await checkVmOptions(vm.options, { vmm: host.selected.vmm.kind, ...size, networkInterfaces, allowHugePages });
  const boot = await bootFiles(options);
  const kinds = ["file", "block device"] as const;
  const drives: HostFile[] = [];
  const named: ExtraDrive[] = [];
  for (const drive of vm.options.drives ?? []) {
    const key = `drive ${drive.drive_id}.path_on_host`;
    const allowed = settings.allowedHostPaths;
    const file = opened.use(await openAllowedPath({ key, path: drive.path_on_host, allowed, kinds }));
    drives.push(file);
    named.push({ ...drive, path_on_host: file.path });
  }
  const spec: MachineSpec = {
    vmlinuxPath: boot.vmlinuxPath,
    initramfsPath: boot.initramfsPath,
    kernelArguments: [...quietArguments, ...vm.bootSource.bootArgs],
    vcpuCount: size.vcpuCount,
    memSizeMib: size.memSizeMib,
    ioLimits: settings.disk.ioLimits,
    options: named.length === 0 ? vm.options : { ...vm.options, drives: named },
  };
  return { spec, drives };
}

/** A job's own kernel and initrd are read once; the VM gets copies. */
async function bootFiles(options: SetUpOptions): Promise<Pick<BootFiles, "vmlinuxPath" | "initramfsPath">> {
  const { settings, host, opened, signal } = options;
  const { kernelImagePath, initrdPath } = options.vm.bootSource;
  const { directories } = host;
  const openFile = async (key: string, path: string): Promise<HostFile> =>
    opened.use(await openAllowedPath({ key, path, allowed: settings.allowedHostPaths, kinds: ["file"] }));
  let boot: Pick<BootFiles, "vmlinuxPath" | "initramfsPath"> = host.boot;
  if (kernelImagePath !== undefined) {
    const key = "boot_source.kernel_image_path";
    const file = await openFile(key, kernelImagePath);
    boot = await prepareBoot({
      vmlinuxPath: undefined,
      jobKernel: { file, read: async (path) => await (await openFile(key, path)).read(maxModuleBytes) },
      kernelsDirectory: directories.kernels,
      cacheDirectory: directories.boot,
      init: await readAsset("litegix-init"),
      shimPath: host.machines.shimPath,
      signal,
    });
  }
  if (initrdPath === undefined) return boot;
  const initrd = await openFile("boot_source.initrd_path", initrdPath);
  const { initramfsPath } = boot;
  const appended = await appendInitrd({ initramfsPath, initrd, cacheDirectory: directories.boot });
  return { vmlinuxPath: boot.vmlinuxPath, initramfsPath: appended };
}
