// StartTask: from a job's task to a workload that runs. What fails half-way leaves nothing behind.

import { PullTimedOutError, ReportedImageError } from "../../images/errors.ts";
import { pullInChild } from "../../images/pull-in-child.ts";
import { ImageStore, type ResolvedImage } from "../../images/store/image-store.ts";
import { launchMachine } from "../../machine/create/launch-machine.ts";
import type { Machine } from "../../machine/machine.ts";
import type { VmRecords } from "../../machine/records/vm-records.ts";
import type { BootTimeline } from "../../machine/timeline.ts";
import { guestInterface } from "../../network/guest-interface.ts";
import { selfCommand } from "../../system/assets.ts";
import type { PluginSettings } from "../config/plugin/plugin-config.ts";
import type { ContainerSettings } from "../config/task/container.ts";
import type { ImageOptions } from "../config/task/image.ts";
import { parseTaskConfig } from "../config/task/task-config.ts";
import { RecoverableError } from "../errors.ts";
import type { ReadyHost } from "../host/inspect-host.ts";
import type { TaskConfig } from "../nomad-driver.ts";
import { peersOf } from "../task/group-peers.ts";
import { Task } from "../task/task.ts";
import { etcHosts, etcResolvConf } from "./etc-files.ts";
import { machineSize } from "./machine-size.ts";
import { processSpec } from "./process-spec.ts";
import { pullSlot, startSlot } from "./start-slots.ts";
import { ownAddress, reserveTaskNetwork, resolveExtraHosts } from "./task-network.ts";
import { prepareTaskVm } from "./vm-setup.ts";

export interface StartTaskOptions {
  readonly config: TaskConfig;
  readonly settings: PluginSettings;
  readonly host: ReadyHost;
  /** Of one host core, 0 when unknown. */
  readonly coreMhz: number;
  /** Tells the job's author what takes time. */
  readonly onEvent: (message: string) => void;
  readonly timeline: BootTimeline;
  readonly signal: AbortSignal;
}

/** Emulated guests on a busy host take tens of seconds. */
const bootTimeoutMs = 120_000;
export const scratchSizeMib = 8 * 1024;
/** Where Nomad's environment says that they are; empty folders until they are shared with the host. */
const nomadDirectories = ["/alloc", "/local", "/secrets"] as const;

export async function startTask(options: StartTaskOptions): Promise<Task> {
  const { config, host, signal } = options;
  const taskSettings = parseTaskConfig(config.driverConfig);
  const size = machineSize({ settings: taskSettings, resources: config.resources, coreMhz: options.coreMhz });
  const vm = await prepareTaskVm({
    vm: taskSettings.vm,
    settings: options.settings,
    host,
    size,
    networkInterfaces: taskSettings.network.mode === "none" ? 0 : 1,
    signal,
  });
  const image = await resolveImage(options, taskSettings.image);
  options.timeline.done("image");
  const process = processSpec({
    image: image.config,
    settings: taskSettings,
    nomadEnv: config.env,
    user: config.user,
  });
  const { records } = host.machines;
  using _slot = await startSlot(options);
  using network = await reserveTaskNetwork({
    config,
    settings: taskSettings.network,
    plugin: options.settings,
    host: host.network,
    records,
    signal,
  });
  const { allowMetadata } = options.settings.network;
  const { machine } = await launchMachine({
    host: host.machines,
    network: network.plan && { plan: network.plan, allowMetadata },
    labels: {
      taskId: config.id,
      allocId: config.allocId,
      taskName: config.name,
      stopSignal: image.config.stopSignal,
      startedAt: new Date().toISOString(),
    },
    ...size,
    ...vm,
    imagePath: image.squashfsPath,
    scratchSizeMib,
    spareDisksDirectory: host.directories.spareDisks,
    stdoutPath: config.stdoutPath,
    stderrPath: config.stderrPath,
    bootTimeoutMs,
    timeline: options.timeline,
    signal,
  });
  return await startInGuest({
    machine,
    records,
    config,
    container: taskSettings.container,
    process,
    stopSignal: image.config.stopSignal,
    timeline: options.timeline,
    signal,
  });
}

async function startInGuest(options: {
  machine: Machine;
  records: VmRecords;
  config: TaskConfig;
  container: ContainerSettings;
  process: ReturnType<typeof processSpec>;
  stopSignal: string;
  timeline: BootTimeline;
  signal: AbortSignal;
}): Promise<Task> {
  const { machine, config, container, process } = options;
  const signal = AbortSignal.any([options.signal, machine.ended]);
  try {
    const hostname = container.hostname ?? machine.record.id;
    const plan = machine.record.network;
    const configured = machine.guest.configure({
      setup: {
        cgroupName: `${config.allocId}.${config.name.replaceAll("/", "_")}.scope`,
        hostname,
        etcHosts: etcHosts({
          hostname,
          ownAddress: ownAddress(plan),
          extraHosts: resolveExtraHosts(container.extraHosts, plan),
        }),
        etcResolvConf: await etcResolvConf({ dns: config.dns, taskDns: container.dns }),
        directories: nomadDirectories,
        process,
        privileged: container.privileged,
        unmasked: container.unmasked,
        readOnlyRoot: container.readOnlyRoot,
        shmSizeBytes: container.shmSizeBytes,
        tmpfsMounts: container.tmpfsMounts,
        devices: container.devices,
        sysctls: container.sysctls,
        pidsLimit: container.pidsLimit,
        init: container.init,
        network: plan && guestInterface(plan),
      },
      signal,
    });
    // Meanwhile, so that the task starts with the right time. A supervisor that can't set it now goes on trying.
    await Promise.all([configured, machine.syncClock(signal).catch(() => undefined)]);
    if (plan?.mode === "namespace") {
      const { records } = options;
      const peers = await peersOf({ namespacePath: plan.path, taskName: config.name, records });
      // It is told again once it runs: a guest that is slow now does not fail to start for want of a name.
      if (peers.length > 0) await machine.guest.setPeers({ peers, signal }).catch(() => undefined);
    }
    options.timeline.done("guest configured");
    const { bootSteps } = await machine.guest.start({ signal: options.signal });
    options.timeline.done("task started");
    options.timeline.addGuestSteps(bootSteps);
    await machine.markRunning();
    options.timeline.done("recorded");
    return new Task({
      id: config.id,
      name: config.name,
      machine,
      startedAt: new Date(),
      stopSignal: options.stopSignal,
    });
  } catch (error) {
    await machine.destroy();
    throw error;
  }
}

/** A registry that does not answer now may answer later: the job's `restart` policy decides about another try. */
async function resolveImage(options: StartTaskOptions, image: ImageOptions): Promise<ResolvedImage> {
  const { registries } = options.settings;
  const directory = options.host.directories.images;
  const store = new ImageStore({ directory, registries });
  // A child of our own costs as much as booting a VM does.
  const found = await store.find(image);
  if (found !== undefined) return found;
  using _slot = await pullSlot(options);
  // Whoever had the slot before may have wanted the same image.
  const foundNow = await store.find(image);
  if (foundNow !== undefined) return foundNow;
  try {
    return await pullInChild({
      command: [...selfCommand(), "internal", "pull"],
      request: {
        directory,
        registries,
        reference: image.reference,
        forcePull: image.forcePull,
        credentials: image.credentials,
      },
      timeoutMs: image.pullTimeoutMs,
      onProgress: options.onEvent,
      signal: options.signal,
    });
  } catch (error) {
    const retryable = (error instanceof ReportedImageError && error.retryable) || error instanceof PullTimedOutError;
    if (!retryable) throw error;
    throw new RecoverableError(error);
  }
}
