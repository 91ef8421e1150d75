// The production checks of Firecracker, its jail and this driver's own settings. Source of the recommendations: Firecracker's
// docs/prod-host-setup.md, release 1.16.
import { noSeccompWarning } from "../../../vmm/select-vmm.ts";
import { isolationOf } from "../../../vmm/vmm.ts";
import type { ReadyHost } from "../inspect-host.ts";
import {
  type CheckGroup,
  notApplicable,
  ok,
  type ProductionCheck,
  type ProductionFacts,
  unknown,
  type Verdict,
  warning,
} from "./check.ts";
import type { TrustedPath } from "./host-state.ts";

/** If the host can't run VMs, nothing is known about them. */
function ready({ host }: ProductionFacts, look: (host: ReadyHost) => Verdict): Verdict {
  return host.ready ? look(host) : unknown(`this host is not ready: ${host.reason}`);
}

const vmmSetting: ProductionCheck = {
  id: "vmm",
  advice: 'The plugin insists on Firecracker: `vmm = "firecracker"`.',
  reason: "With `auto` QEMU runs the VMs if Firecracker's program goes away, behind a weaker boundary.",
  cure: 'Set `vmm = "firecracker"` in the plugin\'s config.',
  look: ({ settings }) => (settings.vmm === "firecracker" ? ok : warning)(`vmm = "${settings.vmm}"`),
};

const isolation: ProductionCheck = {
  id: "isolation",
  advice: "Firecracker runs the VMs here, on hardware virtualisation.",
  reason:
    "QEMU has far more code that a guest can attack. Its emulation is not a boundary at all, as its own authors say.",
  cure: "Install Firecracker on a host with a working /dev/kvm; `doctor` says what is missing.",
  look: (facts) =>
    ready(facts, ({ selected: { vmm } }) => {
      const found = `${isolationOf(vmm)}, ${vmm.kind} ${vmm.version}`;
      return vmm.kind === "firecracker" ? ok(found) : warning(found);
    }),
};

const seccomp: ProductionCheck = {
  id: "seccomp",
  advice: "Firecracker runs under its own seccomp filter.",
  reason: "The filter leaves some 50 of the kernel's calls to a guest that has taken over its VMM.",
  cure: "Install an official release. The driver never passes `--no-seccomp` or a filter of its own.",
  look: (facts) =>
    ready(facts, ({ selected: { vmm, warnings } }) => {
      if (vmm.kind !== "firecracker") return notApplicable(`${vmm.kind} runs the VMs`);
      return warnings.includes(noSeccompWarning)
        ? warning("no filter was in force in the probe's VM")
        : ok("in force in the probe's VM");
    }),
};

const jailer: ProductionCheck = {
  id: "jailer",
  advice: "Firecracker's jailer starts each VM, with a user and a group of its own.",
  reason: "A guest that breaks out of an unjailed Firecracker is root on the host.",
  cure: "Remove `jailer { enabled = false }` from the plugin's config, and install `jailer` beside `firecracker`.",
  look: (facts) => {
    if (!facts.settings.jailer.enabled) return warning("jailer { enabled = false }");
    return ready(facts, ({ selected: { vmm } }) =>
      vmm.jailed ? ok("VMs are jailed") : warning(`${vmm.kind} runs without the jailer`),
    );
  },
};

const users: ProductionCheck = {
  id: "users",
  advice: "Nobody else on the host has a user or group of `uid_range`.",
  reason: "A process with a VM's user can stop that VM and read its files.",
  cure: "Set `jailer { uid_range }` to numbers that neither /etc/passwd, /etc/group, /etc/subuid nor /etc/subgid has.",
  look: ({ settings, state }) => {
    const { first, last } = settings.jailer.users;
    return state.takenUsers.length === 0
      ? ok(`${first}-${last} is free`)
      : warning(`in ${first}-${last}: ${state.takenUsers.join(", ")}`);
  },
};

const programs: ProductionCheck = {
  id: "program_paths",
  advice: "Only root may change `firecracker`, `jailer` and the directories above them.",
  reason: "The driver runs both as root: who may replace them is root.",
  cure: "Give the files and directories to root, mode 755.",
  look: ({ state }) => {
    if (state.programs.length === 0) return notApplicable("Firecracker is not installed");
    return trusted(state.programs);
  },
};

const basePath: ProductionCheck = {
  id: "base_path",
  advice: "Only root may change `rootfs_base_path` and the directories above it.",
  reason: "The jails, the images and programs that run as root lie there.",
  cure: "Give the directories to root, mode 755 or less.",
  look: ({ state }) => trusted([state.basePath]),
};

const baseFileSystem: ProductionCheck = {
  id: "base_file_system",
  advice: "`rootfs_base_path` is on a local disk's file system of its own, without `nodev` and `noexec`.",
  reason:
    "VMs that fill the root's file system stop the host. A jail needs device files and programs. On a tmpfs, disks are memory.",
  cure: "Mount an ext4 or xfs file system at `rootfs_base_path`.",
  look: ({ state }) => {
    const { baseMount: mount } = state;
    if (mount === undefined) return unknown("/proc/self/mounts can't be read");
    const found = `${mount.type} at ${mount.point}`;
    const wrong = mount.options.filter((option) => option === "nodev" || option === "noexec" || option === "ro");
    if (wrong.length > 0) return warning(`${found}, mounted ${wrong.join(", ")}`);
    if (/^(?:tmpfs|ramfs)$/.test(mount.type)) return warning(`${found}: in memory`);
    if (/^(?:nfs4?|cifs|smb3|9p|fuse\..*|virtiofs|ceph)$/.test(mount.type))
      return warning(`${found}: not a local disk`);
    return mount.point === "/" ? warning(`${found}: shared with the rest of the host`) : ok(found);
  },
};

const cgroups: ProductionCheck = {
  id: "cgroups",
  advice: "The host has cgroup version 2: each VM gets limits of memory, swap, CPU and processes.",
  reason:
    "Without cgroups a VM takes the host's memory and CPU. Version 1 has no common limit, and the kernel's authors retire it.",
  cure: "Boot with `systemd.unified_cgroup_hierarchy=1`, or mount cgroup2 at /sys/fs/cgroup.",
  look: ({ state }) => {
    if (state.cgroupVersion === undefined) return warning("no cgroups are mounted");
    return (state.cgroupVersion === 2 ? ok : warning)(`version ${state.cgroupVersion}`);
  },
};

const resourceLimits: ProductionCheck = {
  id: "resource_limits",
  advice: "Each VMM has limits of open files and of the size of its files.",
  reason: "A VMM that a guest has taken over could fill the disk or the tables of the kernel.",
  cure: "The driver sets both (2048 files, the size of the VM's largest disk) if the jailer runs.",
  look: ({ settings, host }) => {
    if (!settings.jailer.enabled) return warning("only the jailer sets them, and it is off");
    const unjailed = host.ready && !host.selected.vmm.jailed;
    return unjailed
      ? warning(`only the jailer sets them, and ${host.selected.vmm.kind} runs`)
      : ok("the driver sets them");
  },
};

const oversize: ProductionCheck = {
  id: "oversize",
  advice: "No job gets a larger VM than it asked Nomad for.",
  reason: "Nomad places jobs by what they reserve. VMs beyond that take the memory and CPUs of others.",
  cure: "Set `allow_oversize = false` in the plugin's config.",
  look: ({ settings }) => (settings.allowOversize ? warning : ok)(`allow_oversize = ${settings.allowOversize}`),
};

const hugePages: ProductionCheck = {
  id: "huge_pages",
  advice: "Jobs do not take the host's huge pages.",
  reason: "Nomad does not account for them, and they lie outside of the cgroup's limit of memory.",
  cure: "Set `allow_huge_pages = false` in the plugin's config.",
  look: ({ settings }) => (settings.allowHugePages ? warning : ok)(`allow_huge_pages = ${settings.allowHugePages}`),
};

const diskSpace: ProductionCheck = {
  id: "disk_space",
  advice: "VMs' disks and images leave space free on the file system.",
  reason: "On a full file system the writes of all VMs fail.",
  cure: "Set `disk { min_free }` in the plugin's config, and free space below `rootfs_base_path`.",
  look: (facts) => {
    const { minFreeMib } = facts.settings.disk;
    const found = `min_free = ${minFreeMib}`;
    if (minFreeMib === 0) return warning(found);
    return facts.host.ready && facts.host.facts.shortOfSpace ? warning(`${found}, and less is free`) : ok(found);
  },
};

const serialConsole: ProductionCheck = {
  id: "serial_console",
  advice: "A guest's serial console is off, or its output is bounded.",
  reason: "A guest prints as much as it likes, and would fill the host's memory or disk.",
  cure: "Nothing to do. `rate_limiter` of a VM's console and `8250.nr_uarts=0` in `boot_args` are the job's choice.",
  look: () => ok("on, for kernel panics: the supervisor drains it and keeps 1 MiB of each VM"),
};

const logFiles: ProductionCheck = {
  id: "log_files",
  advice: "The VMM's log is bounded.",
  reason: "A guest can make the VMM write log lines.",
  cure: "Nothing to do: VMM log and console share one bounded file.",
  look: () => ok("the supervisor keeps 1 MiB of each VM's console and VMM log"),
};

const hangingVmm: ProductionCheck = {
  id: "hanging_vmm",
  advice: "Something ends a VM whose VMM hangs.",
  reason:
    "Firecracker's signal handlers can lock up one VM. That is not a danger to others, but the task does not answer.",
  cure: "Give jobs a health check with `check_restart`: the driver bounds its own waits, but does not watch a running VM.",
  look: () => unknown("only jobs' own health checks tell"),
};

const packetLimits: ProductionCheck = {
  id: "network_limits",
  advice: "Each VM's packets, new connections and open connections are limited.",
  reason: "A flood takes the host's CPU and fills its table of connections, for everyone on the host.",
  cure: "Set `packet_rate`, `connection_rate` and `connections` in the plugin's `network` block. A job's `rate_limiter` bounds its bandwidth.",
  look: ({ settings: { network } }) => {
    const { packets, connections, open } = network.limits;
    const found = `packet_rate = ${packets ?? 0}, connection_rate = ${connections ?? 0}, connections = ${open}`;
    return packets === undefined || connections === undefined || open === 0 ? warning(found) : ok(found);
  },
};

const diskLimits: ProductionCheck = {
  id: "disk_limits",
  advice: "The speed of each VM's disks is limited.",
  reason: "One VM could take all of the host's disk, and slow down every other.",
  cure: "Set `bandwidth` and `ops` in the plugin's `disk` block. A job's own `rate_limiter` can only be stricter.",
  look: ({ settings: { disk } }) => {
    const { bytesPerSecond, opsPerSecond } = disk.ioLimits;
    const found = `bandwidth = ${(bytesPerSecond ?? 0) / 1024 / 1024}, ops = ${opsPerSecond ?? 0}`;
    return bytesPerSecond === undefined || opsPerSecond === undefined ? warning(found) : ok(found);
  },
};

const metadata: ProductionCheck = {
  id: "metadata",
  advice: "VMs do not reach the cloud's metadata service.",
  reason: "It gives the host's credentials to everyone who asks from the host's addresses.",
  cure: "Set `allow_metadata = false` in the plugin's `network` block.",
  look: ({ settings: { network } }) =>
    (network.allowMetadata ? warning : ok)(`allow_metadata = ${network.allowMetadata}`),
};

/** Nomad gives out dynamic ports from here on, at which other allocations listen. */
const firstDynamicPort = 20_000;

const hostServices: ProductionCheck = {
  id: "host_services",
  advice: "VMs reach only chosen services of the host.",
  reason: "A VM that reaches an unprotected API of Nomad, docker or Consul becomes root on the host.",
  cure: "Name addresses with ports in `allow_host` of the plugin's `network` block, or leave its default.",
  look: ({ settings: { network } }) => {
    const wide = network.allowHost.filter(
      ({ network: to, ports }) => to.endsWith("/0") && (ports === undefined || ports[0] < firstDynamicPort),
    );
    if (wide.length === 0) return ok(`allow_host has ${network.allowHost.length} rules, none of them wide`);
    const shown = wide.map(
      ({ network: to, ports }) => `${to}, ${ports === undefined ? "all ports" : `ports ${ports.join("-")}`}`,
    );
    return warning(`allow_host opens ${shown.join("; ")}`);
  },
};

const imageAccess: ProductionCheck = {
  id: "image_access",
  advice: "A private image goes only to jobs whose credentials its registry accepts.",
  reason: "Otherwise every author of jobs gets each image that the host has pulled.",
  cure: 'Set `image_access = "verify"` in the plugin\'s config.',
  look: ({ settings }) =>
    (settings.imageAccess === "verify" ? ok : warning)(`image_access = "${settings.imageAccess}"`),
};

const hostPaths: ProductionCheck = {
  id: "allowed_host_paths",
  advice: "Jobs name no files of the host, or only some in narrow directories of root's.",
  reason: "A job reads, and with a writable drive changes, everything below these paths.",
  cure: "Keep `allowed_host_paths` empty, or name single images or directories that only root may write.",
  look: ({ settings: { allowedHostPaths: paths }, state }) => {
    if (paths.length === 0) return ok("allowed_host_paths is empty");
    const wide = paths.filter((path) => /^\/(?:|etc|dev|root|home|var|var\/lib|boot|proc|sys|run|usr)\/*$/.test(path));
    return wide.length > 0 ? warning(`too wide: ${wide.join(", ")}`) : trusted(state.hostPaths);
  },
};

const singleTenant: ProductionCheck = {
  id: "single_tenant",
  advice: "Each Firecracker process runs one tenant's work.",
  reason: "Firecracker keeps VMs apart, not the processes in one of them.",
  cure: "Nothing to do: each task has a VM of its own.",
  look: () => ok("one VM a task"),
};

const balloon: ProductionCheck = {
  id: "balloon",
  advice: "Nobody relies on a guest's balloon for the host's memory.",
  reason: "The guest decides if it gives memory back. Only the cgroup's limit holds.",
  cure: "Nothing to do: a `balloon` is the job's choice, and the driver counts each VM with its full memory.",
  look: () => notApplicable("a job's choice; the cgroup's limit does not count on it"),
};

function trusted(paths: readonly TrustedPath[]): Verdict {
  const faults = new Set(paths.map(({ fault }) => fault).filter((fault) => fault !== undefined));
  return faults.size === 0 ? ok(paths.map(({ path }) => path).join(", ")) : warning([...faults].join("; "));
}

export const firecrackerGroup: CheckGroup = {
  title: "Firecracker and its jail",
  source:
    "Firecracker recommends most of these in its production host setup. `users`, `base_file_system`, `oversize`, `huge_pages`, `disk_space`, `host_services`, `allowed_host_paths` and `image_access` are this driver's own.",
  checks: [
    vmmSetting,
    isolation,
    seccomp,
    jailer,
    users,
    programs,
    basePath,
    baseFileSystem,
    cgroups,
    resourceLimits,
    oversize,
    hugePages,
    diskSpace,
    serialConsole,
    logFiles,
    hangingVmm,
    packetLimits,
    diskLimits,
    metadata,
    hostServices,
    hostPaths,
    imageAccess,
    singleTenant,
    balloon,
  ],
};
