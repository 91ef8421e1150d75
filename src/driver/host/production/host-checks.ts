// The production checks of the host's kernel, CPU and memory. Source of the recommendations: Firecracker's
// docs/prod-host-setup.md and docs/kernel-policy.md, release 1.16.
import { type CheckGroup, notApplicable, ok, type ProductionCheck, unknown, warning } from "./check.ts";

/** Firecracker's docs/kernel-policy.md, release 1.16: the host kernels that its own tests run on. */
const supportedKernels: readonly string[] = ["5.10", "6.1", "6.18"];

/** Linux 6.13 makes the thread that recovers huge pages without moving it between cgroups. */
const slowStartKernels = { from: "6.1", before: "6.13" } as const;

const kvmNotLoaded = notApplicable("the module kvm is not loaded");

const kernel: ProductionCheck = {
  id: "kernel",
  advice: `The host runs a kernel that Firecracker's own tests run on: ${supportedKernels.join(", ")}.`,
  reason: "KVM is the wall between guests and host. On other kernels nobody tests Firecracker regularly.",
  cure: "Boot one of these kernels, with your distribution's newest security updates.",
  look: ({ state }) => {
    if (state.kernelRelease === undefined) return unknown("/proc/sys/kernel/osrelease can't be read");
    const version = majorMinor(state.kernelRelease);
    return supportedKernels.includes(version)
      ? ok(`${state.kernelRelease}, if its security updates are in`)
      : warning(`${state.kernelRelease}`);
  },
};

const vulnerabilities: ProductionCheck = {
  id: "cpu_vulnerabilities",
  advice: "The kernel mitigates every weakness that it knows of this CPU.",
  reason: "A guest can read other guests' or the host's memory through a weakness that is left open.",
  cure: "Update the kernel and the microcode, and remove `mitigations=` from the kernel's command line. The files in /sys/devices/system/cpu/vulnerabilities say more.",
  look: ({ state }) => {
    if (state.vulnerabilities === undefined) return unknown("this kernel lists no weaknesses of the CPU");
    const all = Object.entries(state.vulnerabilities);
    const show = (entries: typeof all): string => entries.map(([name, text]) => `${name}: ${text}`).join("; ");
    const open = all.filter(([, text]) => /\bvulnerable\b|\bno microcode\b/i.test(text));
    if (open.length > 0) return warning(show(open));
    const unclear = all.filter(([, text]) => /^unknown/i.test(text));
    return unclear.length > 0 ? unknown(show(unclear)) : ok(`${all.length} known weaknesses, none open`);
  },
};

const mitigations: ProductionCheck = {
  id: "kernel_mitigations",
  advice: "The kernel's command line switches no mitigation off.",
  reason:
    "With `mitigations=off` a guest can read memory that is not its own. `no_guest_host` and `no_guest_guest` switch off the parts that hold guests.",
  cure: "Remove `mitigations=` (or set `mitigations=auto,nosmt`) and the options of single weaknesses, and boot again.",
  look: ({ state }) => {
    const risky = state.kernelArguments.filter(
      (word) =>
        /^mitigations=.*\b(?:off|no_guest_host|no_guest_guest|no_user_kernel|no_user_user)\b/.test(word) ||
        /^(?:nopti|nospectre_v1|nospectre_v2|nospec_store_bypass_disable)$/.test(word) ||
        /^(?:pti|spectre_v2|spectre_bhi|spec_store_bypass_disable|l1tf|mds|tsx_async_abort|mmio_stale_data|retbleed|srbds|spec_rstack_overflow|gather_data_sampling|reg_file_data_sampling|indirect_target_selection|vmscape|tsa|kvm\.nx_huge_pages)=off$/.test(
          word,
        ) ||
        /^kvm-intel\.vmentry_l1d_flush=never$/.test(word),
    );
    return risky.length === 0 ? ok("nothing is switched off") : warning(risky.join(" "));
  },
};

const microcode: ProductionCheck = {
  id: "microcode",
  advice: "All CPUs run the vendor's newest microcode, loaded early in the boot.",
  reason: "Many mitigations work only with the microcode that the vendor made for them.",
  cure: "Install your distribution's microcode (Debian: intel-microcode or amd64-microcode) or the firmware's update, and boot again.",
  look: ({ state }) => {
    if (state.virtual === true)
      return notApplicable("this host is a virtual machine: its provider loads the microcode");
    const age = state.vulnerabilities?.["old_microcode"];
    const shown = state.microcode.join(", ");
    if (state.microcode.length > 1) return warning(`the CPUs have different revisions: ${shown}`);
    if (age !== undefined && /vulnerable/i.test(age)) return warning(`revision ${shown} is old: ${age}`);
    if (age !== undefined) return ok(`revision ${shown}, not older than this kernel knows`);
    return unknown(
      shown === "" ? "the CPU shows no revision" : `revision ${shown}; this kernel can't tell if it is old`,
    );
  },
};

const smt: ProductionCheck = {
  id: "smt",
  advice: "Simultaneous multithreading is off.",
  reason: "Two tenants on one core's threads share caches and buffers, which many side channels need.",
  cure: "Boot with `nosmt`, or write `off` to /sys/devices/system/cpu/smt/control. A cloud's machine types have a setting for it.",
  look: ({ state }) => {
    if (state.smt === undefined) return unknown("this kernel has no /sys/devices/system/cpu/smt/control");
    const off = ["off", "forceoff", "notsupported", "notimplemented"].includes(state.smt);
    if (!off) return warning(`control is ${state.smt}`);
    // A virtual machine's CPUs may be threads all the same.
    return state.virtual === true && state.smt === "notsupported"
      ? unknown("this virtual machine sees no threads; its provider decides who shares its cores")
      : ok(`control is ${state.smt}`);
  },
};

const ksm: ProductionCheck = {
  id: "ksm",
  advice: "Kernel samepage merging is off.",
  reason: "The time of a write tells a guest if another process has the same page.",
  cure: "Write `2` to /sys/kernel/mm/ksm/run, which also splits merged pages, then `0`. Disable ksmtuned.",
  look: ({ state }) => {
    if (state.ksm === undefined) return ok("this kernel has no samepage merging");
    return state.ksm === "0" ? ok("/sys/kernel/mm/ksm/run is 0") : warning(`/sys/kernel/mm/ksm/run is ${state.ksm}`);
  },
};

const swap: ProductionCheck = {
  id: "swap",
  advice: "The host has no swap, or an encrypted one.",
  reason:
    "Guests' memory, and the secrets in it, stays on the disk. The driver forbids swap to its VMs only where cgroups can.",
  cure: "Run `swapoff -a` and remove swap from /etc/fstab, or put it on dm-crypt with a random key.",
  look: ({ state }) => {
    if (state.swaps === undefined) return unknown("/proc/swaps can't be read");
    const show = (kind: string): string =>
      state.swaps
        ?.filter((one) => one.kind === kind)
        .map(({ name }) => name)
        .join(", ") ?? "";
    if (show("plain") !== "") return warning(`not encrypted: ${show("plain")}`);
    if (state.swaps.length === 0) return ok("no swap");
    return ok(
      [show("encrypted") && `encrypted: ${show("encrypted")}`, show("memory") && `in memory: ${show("memory")}`]
        .filter(Boolean)
        .join("; "),
    );
  },
};

const rowhammer: ProductionCheck = {
  id: "rowhammer",
  advice: "The memory corrects errors (ECC) and withstands Rowhammer (target row refresh).",
  reason: "Fast repeated reads of one row flip bits in the next, which may belong to another guest.",
  cure: "Look at the data sheet of the memory modules, or ask the provider.",
  look: ({ state }) =>
    unknown(
      state.errorCorrection
        ? "the memory corrects errors (EDAC); no software can tell if it has target row refresh"
        : "no software can tell; no memory controller with error correction is known to this kernel (EDAC)",
    ),
};

const nested: ProductionCheck = {
  id: "nested",
  advice: "KVM gives its guests no virtualisation of their own.",
  reason:
    "Nested virtualisation is the largest part of KVM that a guest could reach. Firecracker's guests do not need it.",
  cure: "Put `options kvm_intel nested=0` (or `kvm_amd`) into /etc/modprobe.d/kvm.conf, and load the module again.",
  look: ({ state }) => {
    const { nested: value } = state.kvm;
    if (value === undefined) return notApplicable("neither kvm_intel nor kvm_amd is loaded");
    return /^(?:N|0)$/.test(value)
      ? ok("the module's parameter nested is off")
      : warning("the module's parameter nested is on");
  },
};

const nxHugePages: ProductionCheck = {
  id: "nx_huge_pages",
  advice: "KVM splits executable huge pages if the CPU has the weakness iTLB multihit, and only then.",
  reason:
    "A guest can crash a CPU with that weakness. On other CPUs the mitigation only makes starts slow, on Linux 6.1 to 6.12.",
  cure: "Put `options kvm nx_huge_pages=auto` into /etc/modprobe.d/kvm.conf; on CPUs without the weakness `nx_huge_pages=never`.",
  look: ({ state }) => {
    const { nxHugePages: value } = state.kvm;
    const weakness = state.vulnerabilities?.["itlb_multihit"];
    if (value === undefined) return kvmNotLoaded;
    if (weakness === undefined) return unknown(`nx_huge_pages is ${value}; this kernel does not list iTLB multihit`);
    if (weakness !== "Not affected") {
      const off = /^(?:N|0|never|off)$/.test(value);
      return (off ? warning : ok)(`nx_huge_pages is ${value} on a CPU with the weakness`);
    }
    if (value === "never") return ok("nx_huge_pages is never; the CPU does not have the weakness");
    if (!startsSlowly(state.kernelRelease)) return notApplicable("the CPU does not have the weakness");
    if (state.favordynmods) return ok("the CPU does not have the weakness; favordynmods keeps starts fast");
    return warning(`nx_huge_pages is ${value}: each start of a VM waits for a mitigation that this CPU does not need`);
  },
};

const favordynmods: ProductionCheck = {
  id: "favordynmods",
  advice: "On Linux 6.1 to 6.12 cgroups favour changes (`favordynmods`), unless `nx_huge_pages` is `never`.",
  reason: "KVM moves a thread between cgroups at each VM's start, which can take tens of milliseconds there.",
  cure: "Run `mount -o remount,favordynmods /sys/fs/cgroup`; with cgroup v1 boot with `cgroup_favordynmods=true`.",
  look: ({ state }) => {
    if (!startsSlowly(state.kernelRelease))
      return notApplicable(`Linux ${state.kernelRelease ?? "of an unknown version"}`);
    if (state.kvm.nxHugePages === undefined) return kvmNotLoaded;
    if (state.favordynmods) return ok("favordynmods is set");
    return state.kvm.nxHugePages === "never" ? ok("nx_huge_pages is never") : warning("favordynmods is not set");
  },
};

const timerPeriod: ProductionCheck = {
  id: "kvm_timer_period",
  advice: "KVM limits the timer interrupts of a guest to fewer than the kernel's default of 5000 a second.",
  reason: "Kernel threads outside of the VM's cgroup inject them, so a guest takes CPU that nobody counts.",
  cure: "Put `options kvm min_timer_period_us=500` into /etc/modprobe.d/kvm.conf after a test with your workloads: it also limits their APIC timers.",
  look: ({ state }) => {
    if (state.kvm.minTimerPeriodUs === undefined) return kvmNotLoaded;
    const found = `min_timer_period_us is ${state.kvm.minTimerPeriodUs}`;
    return Number(state.kvm.minTimerPeriodUs) > defaultTimerPeriodUs ? ok(found) : warning(found);
  },
};

/** arch/x86/kvm/x86.c. */
const defaultTimerPeriodUs = 200;

const pitThreads: ProductionCheck = {
  id: "kvm_pit",
  advice: "The kernel threads that inject VMs' timer interrupts (`kvm-pit`) are in cgroups with a CPU limit.",
  reason: "They begin in the root cgroup, so a guest's timer takes CPU outside of its VM's share.",
  // arch/x86/kvm/i8254.c names the thread by the process id in the VMM's own namespace, where a jailed VMM is the only process.
  cure: "Raise `min_timer_period_us` as `kvm_timer_period` says: it bounds all of them. A thread's name does not tell which jailed VM it serves, so moving it needs its start time.",
  look: ({ state }) => {
    if (state.pitThreads.length === 0) return unknown("no VM with such a thread runs now");
    const free = state.pitThreads.filter(({ inRootCgroup }) => inRootCgroup);
    const counted = `${free.length} of ${state.pitThreads.length} in the root cgroup`;
    if (free.length === 0) return ok(counted);
    const limited = Number(state.kvm.minTimerPeriodUs) > defaultTimerPeriodUs;
    return limited ? ok(`${counted}, and KVM's timer period is limited`) : warning(counted);
  },
};

const kernelLog: ProductionCheck = {
  id: "kernel_log",
  advice: "The kernel writes few messages to a serial console (`quiet loglevel=1`).",
  reason: "Each TAP device and each VM makes messages. A start waits while a slow console prints them.",
  cure: "Add `quiet loglevel=1` to the kernel's command line, or run `dmesg -n 1`.",
  look: ({ state }) => {
    if (!state.serialConsole) return notApplicable("no serial console");
    if (state.consoleLevel === undefined) return unknown("/proc/sys/kernel/printk can't be read");
    const found = `a serial console at level ${state.consoleLevel}`;
    // `quiet` alone gives 4: errors and worse.
    return state.consoleLevel <= 4 ? ok(found) : warning(found);
  },
};

export const hostGroup: CheckGroup = {
  title: "The host",
  source:
    "Firecracker recommends these in its production host setup; `kernel_mitigations` and `nested` are this driver's own.",
  checks: [
    kernel,
    vulnerabilities,
    mitigations,
    microcode,
    smt,
    ksm,
    swap,
    rowhammer,
    nested,
    nxHugePages,
    favordynmods,
    timerPeriod,
    pitThreads,
    kernelLog,
  ],
};

function majorMinor(release: string): string {
  return /^\d+\.\d+/.exec(release)?.[0] ?? "";
}

function startsSlowly(release: string | undefined): boolean {
  const [major = 0, minor = 0] = majorMinor(release ?? "")
    .split(".")
    .map(Number);
  const number = (text: string): number => {
    const [first = 0, second = 0] = text.split(".").map(Number);
    return first * 1000 + second;
  };
  const own = major * 1000 + minor;
  return own >= number(slowStartKernels.from) && own < number(slowStartKernels.before);
}
