// Inspects the kernel, the VMM and the tools that this host has for tasks, anew for every fingerprint. If a piece is
// missing, a sentence says what to install; the plugin loads all the same.
import { mkdir } from "node:fs/promises";
import { type BootFiles, prepareBoot } from "../../boot/prepare-boot.ts";
import type { MachineHost } from "../../machine/create/create-machine.ts";
import { runProbeMachine } from "../../machine/probe-machine.ts";
import type { VmRecords } from "../../machine/records/vm-records.ts";
import type { UserRange } from "../../machine/users.ts";
import { inspectNetwork, type NetworkHost } from "../../network/inspect/inspect-network.ts";
import { installAsset, readAsset } from "../../system/assets.ts";
import { findCgroups } from "../../system/cgroups.ts";
import { findProgram } from "../../system/processes.ts";
import { VmmMissingError } from "../../vmm/errors.ts";
import { type MachineSpec, quietArguments } from "../../vmm/machine-spec.ts";
import { probeArgument } from "../../vmm/probe-kvm.ts";
import { type SelectedVmm, selectVmm } from "../../vmm/select-vmm.ts";
import type { PluginSettings } from "../config/plugin/plugin-config.ts";
import { type HostDirectories, requireTrustedBase } from "./directories.ts";
import { factWarnings, type HostFacts, hostPathWarnings, inspectFacts } from "./host-facts.ts";
import { openServiceWarnings } from "./open-services.ts";
import { judgeBriefly, type ProductionIds } from "./production/production.ts";

export interface ReadyHost {
  readonly ready: true;
  readonly directories: HostDirectories;
  readonly boot: BootFiles;
  readonly selected: SelectedVmm;
  /** The parts that all VMs are made with. */
  readonly machines: MachineHost;
  readonly facts: HostFacts;
  /** One sentence for each thing that works, but should not stay so. */
  readonly warnings: readonly string[];
  readonly network: NetworkHost;
  readonly production: ProductionIds;
}

export interface UnreadyHost {
  readonly ready: false;
  /** "undetected": nothing here runs VMs; "unhealthy": something is missing or broken. */
  readonly health: "undetected" | "unhealthy";
  readonly reason: string;
}

const neededTools: readonly (readonly [tool: string, debianPackage: string])[] = [
  ["mksquashfs", "squashfs-tools"],
  ["mkfs.ext4", "e2fsprogs"],
  ["flock", "util-linux"],
];

export interface InspectHostOptions {
  readonly settings: PluginSettings;
  readonly directories: HostDirectories;
  readonly records: VmRecords;
  readonly signal?: AbortSignal | undefined;
}

/** The host as it was last looked at. */
export class InspectedHost {
  readonly #options: InspectHostOptions;
  #latest: Promise<ReadyHost | UnreadyHost> | undefined;

  constructor(options: InspectHostOptions) {
    this.#options = options;
  }

  /** Never fails. */
  async look(): Promise<ReadyHost | UnreadyHost> {
    this.#latest = inspectHost(this.#options);
    return await this.#latest;
  }

  /** Inspects the host only if that has not been done yet. */
  async latest(): Promise<ReadyHost | UnreadyHost> {
    return await (this.#latest ?? this.look());
  }
}

/** Never fails: a fault becomes the reason. */
export async function inspectHost(options: InspectHostOptions): Promise<ReadyHost | UnreadyHost> {
  const { settings, directories, signal } = options;
  const unready = (health: UnreadyHost["health"], reason: string): UnreadyHost => ({ ready: false, health, reason });
  if (process.getuid?.() !== 0) return unready("undetected", "the Nomad agent must run as root to start microVMs");
  for (const [tool, debianPackage] of neededTools) {
    if ((await findProgram(tool)) === undefined)
      return unready("unhealthy", `${tool} is not installed: install Debian's ${debianPackage}`);
  }
  try {
    await makeDirectories(directories);
    const shimPath = await installAsset({ name: "litegix-shim", directory: directories.bin });
    const boot = await prepareBoot({
      vmlinuxPath: settings.vmlinuxPath,
      kernelsDirectory: directories.kernels,
      cacheDirectory: directories.boot,
      init: await readAsset("litegix-init"),
      shimPath,
      signal,
    });
    const hierarchies = await findCgroups();
    const common = {
      records: options.records,
      shimPath,
      users: vmUsers(settings.jailer.users),
      minFreeMib: settings.disk.minFreeMib,
      cgroups: hierarchies && { hierarchies, parent: settings.jailer.parentCgroup },
    };
    const { vmlinuxPath, initramfsPath } = boot;
    const selected = await selectVmm({
      choice: settings.vmm,
      firecrackerPath: settings.firecrackerPath,
      jailer: settings.jailer.enabled ? { path: settings.jailerPath } : undefined,
      qemuPath: settings.qemuPath,
      vhostDeviceVsockPath: await installAsset({ name: "vhost-device-vsock", directory: directories.bin }),
      runProbe: ({ vmm, timeoutMs, signal }) =>
        runProbeMachine({ host: { ...common, vmm }, spec: probeSpec(boot), timeoutMs, signal }),
      subjects: [vmlinuxPath, initramfsPath],
      cacheDirectory: directories.boot,
      signal,
    });
    const facts = await inspectFacts({
      cgroupVersion: hierarchies?.version,
      basePath: directories.base,
      minFreeMib: settings.disk.minFreeMib,
    });
    const network = await inspectNetwork({ subnet: settings.network.subnet, signal });
    const machines = { ...common, vmm: selected.vmm };
    const hostPaths = await hostPathWarnings(settings.allowedHostPaths);
    const open = await openServiceWarnings(settings.network.allowHost);
    const warnings = [...selected.warnings, ...factWarnings(facts), ...hostPaths, ...open];
    const host = { ready: true, directories, boot, selected, machines, facts, network, warnings } as const;
    return { ...host, production: await judgeBriefly({ settings, host }) };
  } catch (error) {
    signal?.throwIfAborted();
    return unready(error instanceof VmmMissingError ? "undetected" : "unhealthy", (error as Error).message);
  }
}

/** Before anything below is read or run. Fails with UntrustedPathError. */
async function makeDirectories(directories: HostDirectories): Promise<void> {
  await requireTrustedBase(directories);
  for (const directory of [directories.base, directories.boot, directories.bin, directories.machines]) {
    await mkdir(directory, { recursive: true, mode: 0o700 });
  }
  // Somebody may have made one meanwhile.
  await requireTrustedBase(directories);
}

/** Pulls have the last user of the range, so that no VM shares it with them. */
function vmUsers({ first, last }: UserRange): UserRange {
  return { first, last: Math.max(first, last - 1) };
}

function probeSpec({ vmlinuxPath, initramfsPath }: BootFiles): MachineSpec {
  const kernelArguments = [...quietArguments, probeArgument];
  return { vmlinuxPath, initramfsPath, kernelArguments, vcpuCount: 1, memSizeMib: 256, options: {} };
}
