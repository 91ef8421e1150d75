// From the job's settings for its VM to the kind of VM: paths of the host that the job may name, its own kernel or initrd.
import { appendInitrd } from "../../boot/append-initrd.ts";
import { type BootFiles, prepareBoot } from "../../boot/prepare-boot.ts";
import { readAsset } from "../../system/assets.ts";
import { type MachineSpec, quietArguments } from "../../vmm/machine-spec.ts";
import { allowedHostPath } from "../config/host-paths.ts";
import type { PluginSettings } from "../config/plugin/plugin-config.ts";
import type { VmSettings } from "../config/task/vm.ts";
import type { ReadyHost } from "../host/inspect-host.ts";
import type { MachineSize } from "./machine-size.ts";
import { checkVmOptions } from "./vm-rules.ts";

/** Fails with ConfigError, KernelImageError or InitrdError. */
export async function machineSpec(options: {
  vm: VmSettings;
  settings: PluginSettings;
  host: ReadyHost;
  size: MachineSize;
  networkInterfaces: number;
  signal: AbortSignal;
}): Promise<MachineSpec> {
  const { vm, settings, host, size, networkInterfaces } = options;
  const allowHugePages = settings.allowHugePages || settings.allowOversize;
  await checkVmOptions(vm.options, { vmm: host.selected.vmm.kind, ...size, networkInterfaces, allowHugePages });
  const boot = await bootFiles(options);
  const allowed = settings.allowedHostPaths;
  const drives = await Promise.all(
    (vm.options.drives ?? []).map(async (drive) => {
      const key = `drive ${drive.drive_id}.path_on_host`;
      const kinds = ["file", "block device"] as const;
      return { ...drive, path_on_host: await allowedHostPath({ key, path: drive.path_on_host, allowed, kinds }) };
    }),
  );
  return {
    vmlinuxPath: boot.vmlinuxPath,
    initramfsPath: boot.initramfsPath,
    kernelArguments: [...quietArguments, ...vm.bootSource.bootArgs],
    vcpuCount: size.vcpuCount,
    memSizeMib: size.memSizeMib,
    ioLimits: settings.disk.ioLimits,
    options: drives.length === 0 ? vm.options : { ...vm.options, drives },
  };
}

async function bootFiles(options: {
  vm: VmSettings;
  settings: PluginSettings;
  host: ReadyHost;
  signal: AbortSignal;
}): Promise<Pick<BootFiles, "vmlinuxPath" | "initramfsPath">> {
  const { settings, host, signal } = options;
  const { kernelImagePath, initrdPath } = options.vm.bootSource;
  const allowed = settings.allowedHostPaths;
  const kinds = ["file"] as const;
  const { directories } = host;
  let boot: Pick<BootFiles, "vmlinuxPath" | "initramfsPath"> = host.boot;
  if (kernelImagePath !== undefined) {
    const key = "boot_source.kernel_image_path";
    boot = await prepareBoot({
      vmlinuxPath: await allowedHostPath({ key, path: kernelImagePath, allowed, kinds }),
      kernelsDirectory: directories.kernels,
      cacheDirectory: directories.boot,
      init: await readAsset("litegix-init"),
      shimPath: host.machines.shimPath,
      signal,
    });
  }
  if (initrdPath === undefined) return boot;
  const key = "boot_source.initrd_path";
  const allowedPath = await allowedHostPath({ key, path: initrdPath, allowed, kinds });
  const { initramfsPath } = boot;
  const appended = await appendInitrd({ initramfsPath, initrdPath: allowedPath, cacheDirectory: directories.boot });
  return { vmlinuxPath: boot.vmlinuxPath, initramfsPath: appended };
}
