// Converts between Nomad's messages and the driver's plain types. Sub-messages that Nomad's host dereferences unchecked
// are always set: their absence ends the whole agent with a panic.
import type { MessageInitShape } from "@bufbuild/protobuf";
import { type Duration, timestampFromDate, timestampFromMs } from "@bufbuild/protobuf/wkt";
import type {
  DriverCapabilities,
  ExitResult,
  Fingerprint,
  NetworkOverride,
  ProcessStats,
  TaskConfig,
  TaskEvent,
  TaskStats,
  TaskStatus,
} from "../driver/nomad-driver.ts";
import {
  type CapabilitiesResponseSchema,
  CPUUsage_Fields as CpuFields,
  type DriverTaskEventSchema,
  type ExitResultSchema,
  type FingerprintResponseSchema,
  DriverCapabilities_FSIsolation as FsIsolation,
  FingerprintResponse_HealthState as HealthState,
  type InspectTaskResponseSchema,
  MemoryUsage_Fields as MemoryFields,
  DriverCapabilities_MountConfigs as MountConfigs,
  NetworkIsolationSpec_NetworkIsolationMode as NetworkMode,
  type NetworkOverrideSchema,
  type TaskConfig as TaskConfigMessage,
  type TaskResourceUsageSchema,
  TaskState,
  type TaskStatsResponseSchema,
} from "../gen/nomad/drivers/driver_pb.js";
import type { AttributeSchema } from "../gen/nomad/structs/structs_pb.js";
import { decodeDriverConfig } from "./driver-config.ts";

export function fromTaskConfig(message: TaskConfigMessage): TaskConfig {
  const memory = message.resources?.allocatedResources?.memory;
  return {
    id: message.id,
    name: message.name,
    allocId: message.allocId,
    driverConfig: decodeDriverConfig(message.msgpackDriverConfig),
    env: message.env,
    user: message.user,
    allocDirectory: message.allocDir,
    stdoutPath: message.stdoutPath,
    stderrPath: message.stderrPath,
    resources: {
      cpuMhz: Number(message.resources?.allocatedResources?.cpu?.cpuShares ?? 0n),
      cpusetCpus: message.resources?.linuxResources?.cpusetCpus ?? "",
      cpusetCgroup: message.resources?.linuxResources?.cpusetCgroup ?? "",
      memoryMib: Number(memory?.memoryMb ?? 0n),
      memoryMaxMib: Number(memory?.memoryMaxMb ?? 0n),
    },
    networkNamespacePath: message.networkIsolationSpec?.path || undefined,
    ports: (message.resources?.ports ?? []).map(({ label, value, to, hostIp }) => ({
      label,
      hostPort: value,
      to,
      hostIp,
    })),
    dns: message.dns,
  };
}

const fsIsolations = { none: FsIsolation.NONE, chroot: FsIsolation.CHROOT, image: FsIsolation.IMAGE } as const;
const networkModes = {
  host: NetworkMode.HOST,
  group: NetworkMode.GROUP,
  task: NetworkMode.TASK,
  none: NetworkMode.NONE,
} as const;

export function toCapabilities(capabilities: DriverCapabilities): MessageInitShape<typeof CapabilitiesResponseSchema> {
  return {
    capabilities: {
      sendSignals: capabilities.sendSignals,
      exec: capabilities.exec,
      fsIsolation: fsIsolations[capabilities.fsIsolation],
      networkIsolationModes: capabilities.networkIsolationModes.map((mode) => networkModes[mode]),
      mountConfigs: capabilities.mountConfigs ? MountConfigs.ANY_MOUNTS : MountConfigs.NO_MOUNTS,
    },
  };
}

const healthStates = {
  undetected: HealthState.UNDETECTED,
  unhealthy: HealthState.UNHEALTHY,
  healthy: HealthState.HEALTHY,
} as const;

export function toFingerprint(fingerprint: Fingerprint): MessageInitShape<typeof FingerprintResponseSchema> {
  return {
    health: healthStates[fingerprint.health],
    healthDescription: fingerprint.description,
    attributes: Object.fromEntries(
      Object.entries(fingerprint.attributes).map(([key, value]) => [key, toAttribute(value)]),
    ),
  };
}

function toAttribute(value: string | number | boolean): MessageInitShape<typeof AttributeSchema> {
  if (typeof value === "string") return { value: { case: "stringVal", value } };
  if (typeof value === "boolean") return { value: { case: "boolVal", value } };
  if (Number.isSafeInteger(value)) return { value: { case: "intVal", value: BigInt(value) } };
  return { value: { case: "floatVal", value } };
}

export function toExitResult(result: ExitResult | undefined): MessageInitShape<typeof ExitResultSchema> {
  return { exitCode: result?.exitCode ?? 0, signal: result?.signal ?? 0, oomKilled: result?.oomKilled ?? false };
}

export function toTaskEvent(event: TaskEvent): MessageInitShape<typeof DriverTaskEventSchema> {
  return {
    taskId: event.taskId,
    allocId: event.allocId,
    taskName: event.taskName,
    timestamp: timestampFromDate(event.at),
    message: event.message,
  };
}

export function toInspection(status: TaskStatus): MessageInitShape<typeof InspectTaskResponseSchema> {
  return {
    task: {
      id: status.id,
      name: status.name,
      state: status.state === "running" ? TaskState.RUNNING : TaskState.EXITED,
      startedAt: timestampFromDate(status.startedAt),
      completedAt: status.completedAt === undefined ? timestampFromMs(0) : timestampFromDate(status.completedAt),
      result: toExitResult(status.result),
    },
    driver: { attributes: { ...status.driverAttributes } },
    ...toNetworkOverride(status.networkOverride),
  };
}

/** Absent without an override: Nomad takes an empty one for a network without address. */
export function toNetworkOverride(override: NetworkOverride | undefined): {
  networkOverride?: MessageInitShape<typeof NetworkOverrideSchema>;
} {
  if (override === undefined) return {};
  const { address: addr, portMap, autoAdvertise } = override;
  return { networkOverride: { addr, portMap: { ...portMap }, autoAdvertise } };
}

export function toTaskStats(taskId: string, stats: TaskStats): MessageInitShape<typeof TaskStatsResponseSchema> {
  const { cpu, memory } = stats;
  return {
    stats: {
      id: taskId,
      timestamp: timestampFromDate(stats.at),
      aggResourceUsage: {
        cpu: {
          percent: cpu.percent,
          userMode: cpu.userPercent,
          systemMode: cpu.systemPercent,
          totalTicks: cpu.totalTicks,
          measuredFields: [CpuFields.PERCENT, CpuFields.USER_MODE, CpuFields.SYSTEM_MODE, CpuFields.TOTAL_TICKS],
        },
        memory: {
          rss: bytes(memory.rssBytes),
          cache: bytes(memory.cacheBytes),
          usage: bytes(memory.usageBytes),
          maxUsage: bytes(memory.maxUsageBytes),
          kernelUsage: bytes(memory.kernelUsageBytes),
          swap: bytes(memory.swapBytes),
          measuredFields: [
            MemoryFields.RSS,
            MemoryFields.CACHE,
            MemoryFields.USAGE,
            MemoryFields.MAX_USAGE,
            MemoryFields.KERNEL_USAGE,
            MemoryFields.SWAP,
          ],
        },
      },
      resourceUsageByPid: Object.fromEntries(
        [...stats.processes].map(([key, process]) => [key, toProcessUsage(process)]),
      ),
    },
  };
}

function toProcessUsage(process: ProcessStats): MessageInitShape<typeof TaskResourceUsageSchema> {
  const { userPercent, systemPercent, rssBytes } = process;
  return {
    cpu: {
      percent: userPercent + systemPercent,
      userMode: userPercent,
      systemMode: systemPercent,
      measuredFields: [CpuFields.PERCENT, CpuFields.USER_MODE, CpuFields.SYSTEM_MODE],
    },
    memory: { rss: bytes(rssBytes), measuredFields: [MemoryFields.RSS] },
  };
}

const bytes = (value: number): bigint => BigInt(Math.max(0, Math.round(value)));

/** Milliseconds; 0 if unset. */
export function fromDuration(duration: Duration | undefined): number {
  return duration === undefined ? 0 : Number(duration.seconds) * 1000 + duration.nanos / 1e6;
}
