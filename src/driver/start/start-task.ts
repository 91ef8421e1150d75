// StartTask: from a job's task to a workload that runs. A start that fails half-way leaves nothing behind.
import type { GuestSetup } from "../../guest/setup.ts";
import { acquireMachine } from "../../machine/acquire-machine.ts";
import { promisedBytes } from "../../machine/create/scratch-disk.ts";
import type { Machine } from "../../machine/machine.ts";
import type { VmRecords } from "../../machine/records/vm-records.ts";
import type { BootTimeline } from "../../machine/timeline.ts";
import type { PluginSettings } from "../config/plugin/plugin-config.ts";
import { parseTaskConfig } from "../config/task/task-config.ts";
import type { ReadyHost } from "../host/inspect-host.ts";
import type { TaskConfig } from "../nomad-driver.ts";
import { peersOf } from "../task/group-peers.ts";
import { describeTask, encodeLabels } from "../task/labels.ts";
import { Task } from "../task/task.ts";
import { guestSetup } from "./guest-setup.ts";
import { diskSizeMib, machineSize } from "./machine-size.ts";
import { processSpec } from "./process-spec.ts";
import { resolveImage } from "./resolve-image.ts";
import { startSlot } from "./start-slots.ts";
import { reserveTaskNetwork } from "./task-network.ts";
import { setUpVm } from "./vm-setup.ts";

export interface StartTaskOptions {
  readonly config: TaskConfig;
  readonly settings: PluginSettings;
  readonly host: ReadyHost;
  /** MHz of one host core, 0 if unknown. */
  readonly coreMhz: number;
  /** Reports slow steps to the job's author. */
  readonly onEvent: (message: string) => void;
  readonly timeline: BootTimeline;
  readonly signal: AbortSignal;
}

/** Emulated guests on a busy host take tens of seconds. */
const bootTimeoutMs = 120_000;

export async function startTask(options: StartTaskOptions): Promise<Task> {
  const { config, settings, host, onEvent, timeline, signal } = options;
  const taskSettings = parseTaskConfig(config.driverConfig);
  const { vm, network, container } = taskSettings;
  const size = machineSize({
    settings: taskSettings,
    resources: config.resources,
    coreMhz: options.coreMhz,
    allowOversize: settings.allowOversize,
  });
  const scratchSizeMib = diskSizeMib(taskSettings, settings);
  const networkInterfaces = network.mode === "none" ? 0 : 1;
  await using opened = new AsyncDisposableStack();
  const { spec, drives } = await setUpVm({ vm, settings, host, size, networkInterfaces, opened, signal });
  const image = await resolveImage({
    image: taskSettings.image,
    settings,
    host,
    minFreeBytes: await minFreeBytes(host),
    onEvent,
    signal,
  });
  timeline.done("image");
  const { stopSignal } = image.config;
  const process = processSpec({
    image: image.config,
    settings: taskSettings,
    nomadEnv: config.env,
    user: config.user,
  });
  const { records } = host.machines;
  using _slot = await startSlot({ onEvent, signal });
  using reserved = await reserveTaskNetwork({
    config,
    settings: network,
    taskDns: container.dns,
    plugin: settings,
    host: host.network,
    networks: records.networks,
    signal,
  });
  const { allocId, id: taskId, name: taskName } = config;
  const machine = await acquireMachine({
    host: host.machines,
    request: {
      spec,
      drives,
      cpu: size.cpu,
      labels: encodeLabels({ taskId, allocId, taskName, stopSignal, startedAt: new Date() }),
      madeFor: describeTask({ taskName, allocId }),
      network: reserved.plan && { plan: reserved.plan },
      workload: {
        imagePath: image.squashfsPath,
        scratchSizeMib,
        spareDisksDirectory: host.directories.spareDisks,
        stdoutPath: config.stdoutPath,
        stderrPath: config.stderrPath,
        logRoot: config.allocDirectory,
      },
    },
    bootTimeoutMs,
    timeline,
    signal,
  });
  try {
    const setup = await guestSetup({ config, container, process, record: machine.record });
    await startWorkload({ machine, setup, taskName, records, timeline, signal });
  } catch (error) {
    await machine.destroy();
    throw error;
  }
  return new Task({ id: taskId, name: taskName, machine, startedAt: new Date(), stopSignal });
}

/** The space that a pull must leave: the host's part, and the part of VMs' disks that is not yet allocated. */
async function minFreeBytes({ machines }: ReadyHost): Promise<number> {
  return machines.minFreeMib * 1024 * 1024 + promisedBytes(await machines.records.directories());
}

/** Resolves when the task's program runs and the VM's record says so. */
async function startWorkload(options: {
  machine: Machine;
  setup: GuestSetup;
  taskName: string;
  records: VmRecords;
  timeline: BootTimeline;
  signal: AbortSignal;
}): Promise<void> {
  const { machine, setup, taskName, records, timeline } = options;
  const signal = AbortSignal.any([options.signal, machine.ended]);
  const { network } = machine.record;
  // Meanwhile sets the clock, so that the task starts with the right time. If the supervisor can't set it now, it goes
  // on trying.
  const clockSet = machine.syncClock(signal).catch(() => undefined);
  await Promise.all([machine.guest.configure({ setup, signal }), clockSet]);
  if (network?.mode === "namespace") {
    const peers = await peersOf({ namespacePath: network.path, taskName, records });
    // The driver repeats this once the task runs, so that a guest that is slow now does not fail to start.
    if (peers.length > 0) await machine.guest.setPeers({ peers, signal }).catch(() => undefined);
  }
  timeline.done("guest configured");
  const { bootSteps } = await machine.guest.start({ signal: options.signal });
  timeline.done("task started");
  timeline.addGuestSteps(bootSteps);
  await machine.markRunning();
  timeline.done("recorded");
}
