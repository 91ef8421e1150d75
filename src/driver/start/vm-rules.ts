// Checks that a job's VM options fit together, and fit the VM's size, its network and the host. The driver names the
// broken rule before anything boots; Firecracker would report it half-way or not at all.
import type { VmOptions } from "../../vmm/vm-options.ts";
import { optionKey } from "../config/task/vm.ts";
import { ConfigError } from "../errors.ts";
import { freeHugePages } from "../host/host-facts.ts";

/** Interrupt lines that Firecracker has for devices on x86-64. */
const maxDevices = 17;
const hugePageMib = 2;

export interface VmFacts {
  readonly vmm: "firecracker" | "qemu";
  readonly vcpuCount: number;
  readonly memSizeMib: number;
  readonly networkInterfaces: number;
  /** The plugin's `allow_huge_pages`. */
  readonly allowHugePages: boolean;
}

/** Fails with ConfigError. */
export async function checkVmOptions(options: VmOptions, facts: VmFacts): Promise<void> {
  checkVmm(options, facts);
  checkMachine(options, facts);
  checkBalloon(options, facts);
  checkNetwork(options, facts);
  checkDevices(options, facts);
  if (options.machineConfig?.huge_pages === "2M") await checkFreeHugePages(facts);
}

function checkVmm(options: VmOptions, facts: VmFacts): void {
  if (facts.vmm === "firecracker") return;
  const option = (Object.keys(options) as (keyof VmOptions)[]).find((name) => name !== "drives");
  if (option !== undefined) {
    throw new ConfigError(optionKey(option), undefined, "is Firecracker's, and QEMU runs the VMs of this host");
  }
}

function checkMachine(options: VmOptions, facts: VmFacts): void {
  const { smt, huge_pages: hugePages } = options.machineConfig ?? {};
  if (smt === true && facts.vcpuCount > 1 && facts.vcpuCount % 2 === 1) {
    const rule = `needs one vCPU or an even number of them; the VM has ${facts.vcpuCount} (vpu_count)`;
    throw new ConfigError("machine_config.smt", smt, rule);
  }
  if (hugePages === "2M" && !facts.allowHugePages) {
    const rule = "is not allowed on this node: set allow_huge_pages = true in the plugin's config";
    throw new ConfigError("machine_config.huge_pages", hugePages, rule);
  }
  if (hugePages === "2M" && facts.memSizeMib % hugePageMib !== 0) {
    const rule = `needs memory of a multiple of ${hugePageMib} MiB; the VM has ${facts.memSizeMib} MiB (mem_size)`;
    throw new ConfigError("machine_config.huge_pages", hugePages, rule);
  }
}

function checkBalloon(options: VmOptions, facts: VmFacts): void {
  const { balloon } = options;
  if (balloon === undefined) return;
  if (balloon.amount_mib >= facts.memSizeMib) {
    const rule = `must be less than the VM's memory, which is ${facts.memSizeMib} MiB (mem_size)`;
    throw new ConfigError("balloon.amount_mib", balloon.amount_mib, rule);
  }
}

function checkNetwork(options: VmOptions, facts: VmFacts): void {
  if (facts.networkInterfaces > 0) return;
  for (const option of ["mmds", "rxRateLimiter", "txRateLimiter"] as const) {
    if (options[option] === undefined) continue;
    throw new ConfigError(optionKey(option), undefined, "needs a network interface, and this task's VM has none");
  }
}

/** The image, the scratch disk and vsock are always there. */
function checkDevices(options: VmOptions, facts: VmFacts): void {
  const drives = options.drives?.length ?? 0;
  const others = 3 + facts.networkInterfaces + (options.balloon ? 1 : 0) + (options.entropy ? 1 : 0);
  if (drives + others <= maxDevices) return;
  const rule = `are too many: a VM has at most ${maxDevices} devices, and ${others} are taken`;
  throw new ConfigError("drive", drives, rule);
}

async function checkFreeHugePages(facts: VmFacts): Promise<void> {
  const free = await freeHugePages();
  const needed = facts.memSizeMib / hugePageMib;
  if (free >= needed) return;
  const rule = `needs ${needed} free huge pages on the host, which has ${free}: raise the sysctl vm.nr_hugepages there`;
  throw new ConfigError("machine_config.huge_pages", "2M", rule);
}
