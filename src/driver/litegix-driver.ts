// The driver: Nomad's verbs on tasks. Everything that it holds can be found again on disk; it may die at any time.

import type { ExecOutput } from "../guest/exec/session.ts";
import { keepSpareScratchDisk, removeSpareScratchDisks } from "../machine/create/scratch-disk.ts";
import { keepNetworks } from "../machine/keep-networks.ts";
import type { MachineRecord } from "../machine/records/manifest.ts";
import { VmRecords } from "../machine/records/vm-records.ts";
import { removeMachine, sweepMachines } from "../machine/remove-machine.ts";
import { keepSharedCores } from "../machine/shared-cores.ts";
import { BootTimeline } from "../machine/timeline.ts";
import type { Logger } from "../system/logger.ts";
import { AsyncQueue, raceAbort } from "../system/wait.ts";
import { driverName, version } from "../version.ts";
import type { HclSpec } from "./config/hcl-spec.ts";
import { basePathOf, type PluginSettings, parsePluginConfig } from "./config/plugin/plugin-config.ts";
import { pluginConfigSchema, taskConfigSchema } from "./config/schemas.ts";
import { type ConfigError, NotReadyError, TaskRunningError } from "./errors.ts";
import { type HostDirectories, hostDirectories, requireTrustedBase } from "./host/directories.ts";
import { fingerprints } from "./host/fingerprint.ts";
import { InspectedHost, type ReadyHost, type UnreadyHost } from "./host/inspect-host.ts";
import type {
  AgentConfig,
  DriverCapabilities,
  ExecResult,
  ExitResult,
  Fingerprint,
  NomadDriver,
  TaskEvent,
  TaskHandle,
  TaskStats,
  TaskStatus,
} from "./nomad-driver.ts";
import { startTask } from "./start/start-task.ts";
import { execTask, execTaskStreaming } from "./task/exec-task.ts";
import { GroupPeers, namespaceOf } from "./task/group-peers.ts";
import { taskLabels } from "./task/labels.ts";
import { endedLogs } from "./task/log-fifos.ts";
import { encodeDriverState, recoverTask } from "./task/recover-task.ts";
import { signalNumber } from "./task/signals.ts";
import { taskStats } from "./task/task-stats.ts";
import { TaskTable } from "./task/task-table.ts";
import { networkOverride, vmAttributes } from "./task/vm-attributes.ts";

type Parameter<Method extends keyof NomadDriver> = NomadDriver[Method] extends (options: infer Options) => unknown
  ? Options
  : never;

/** Known as soon as the base path is: even a misconfigured plugin recovers and ends running VMs. */
interface KnownVms {
  readonly directories: HostDirectories;
  readonly records: VmRecords;
  readonly peers: GroupPeers;
  /** MHz of one host core, 0 if Nomad does not know. */
  readonly coreMhz: number;
}

type PluginState =
  | { readonly kind: "unconfigured" }
  | { readonly kind: "misconfigured"; readonly vms: KnownVms; readonly error: ConfigError }
  | {
      readonly kind: "configured";
      readonly vms: KnownVms;
      readonly settings: PluginSettings;
      readonly host: InspectedHost;
    };

export class LitegixDriver implements NomadDriver {
  readonly info = { name: driverName, version };
  readonly #logger: Logger;
  readonly #tasks = new TaskTable();
  /** Emits a recovered task's events, by its id. Nomad drops those of a task that it has not restored: it waits for the task then. */
  readonly #lateEvents = new Map<string, () => void>();
  readonly #events = new AsyncQueue<TaskEvent>({ limit: 1000 });
  readonly #closing = new AbortController();
  #keeping = new AbortController();
  #state: PluginState = { kind: "unconfigured" };

  constructor(options: { logger: Logger }) {
    this.#logger = options.logger;
  }

  configSchema(): HclSpec {
    return pluginConfigSchema;
  }

  taskConfigSchema(): HclSpec {
    return taskConfigSchema;
  }

  capabilities(): DriverCapabilities {
    return {
      sendSignals: true,
      exec: true,
      fsIsolation: "image",
      // "host" means a network of the VM's own behind the host's addresses; "group" is Nomad's bridge and CNI.
      networkIsolationModes: ["host", "group"],
      mountConfigs: false,
    };
  }

  async setConfig(options: Parameter<"setConfig">): Promise<void> {
    const { agent, config } = options;
    if (agent === undefined) return;
    const vms = this.#vmsBelow(hostDirectories(basePathOf(config)), coreMhz(agent));
    let settings: PluginSettings;
    try {
      settings = parsePluginConfig(config);
    } catch (error) {
      // An error here would keep the whole agent, with its other drivers, from starting.
      this.#state = { kind: "misconfigured", vms, error: error as ConfigError };
      return;
    }
    const { directories, records } = vms;
    const host = new InspectedHost({ settings, directories, records, signal: this.#closing.signal });
    this.#state = { kind: "configured", vms, settings, host };
    await this.#sweep(vms);
  }

  async *fingerprint(signal: AbortSignal): AsyncGenerator<Fingerprint, void, undefined> {
    // Nomad asks only the plugin that runs tasks, not those that an agent starts for validation.
    if (this.#state.kind === "configured") this.#keepVms(this.#state.vms.records);
    for await (const fingerprint of fingerprints({ inspect: () => this.#inspect(), signal })) {
      const { health, description, attributes } = fingerprint;
      this.#logger.info("looked at the host", { health, description, ...attributes });
      yield fingerprint;
    }
  }

  taskEvents(signal: AbortSignal): AsyncIterable<TaskEvent> {
    return this.#events.read(signal);
  }

  async startTask(options: Parameter<"startTask">): Promise<TaskHandle> {
    const { config } = options;
    const state = this.#state;
    if (state.kind !== "configured") throw new NotReadyError({ reason: whyNotConfigured(state) });
    const { settings, vms } = state;
    const host = await state.host.latest();
    if (!host.ready) throw new NotReadyError({ reason: host.reason });
    const timeline = new BootTimeline();
    const task = await this.#tasks.add(config.id, () =>
      startTask({
        config,
        settings,
        host,
        coreMhz: vms.coreMhz,
        onEvent: (message) => this.#emit(config, message),
        timeline,
        signal: AbortSignal.any([options.signal, this.#closing.signal]),
      }),
    );
    this.#logger.info("started task", { task_id: config.id, vm: task.machine.record.id });
    this.#logger.debug("start timeline in ms", { task_id: config.id, steps: timeline.steps });
    keepSpareDisk(host, settings);
    this.#peersChanged(vms, task.machine.record);
    const { id, network } = task.machine.record;
    return { driverState: encodeDriverState(id), networkOverride: networkOverride(network) };
  }

  async recoverTask(options: Parameter<"recoverTask">): Promise<void> {
    const { config, driverState } = options;
    if (this.#tasks.find(config.id) !== undefined) return;
    const vms = this.#knownVms();
    const task = await this.#tasks.add(config.id, () =>
      recoverTask({ taskId: config.id, taskName: config.name, driverState, records: vms.records }),
    );
    this.#logger.info("recovered task", { task_id: config.id, vm: task.machine.record.id });
    const texts = await endedLogs(config);
    if (texts.length > 0)
      this.#lateEvents.set(config.id, () => {
        for (const text of texts) this.#emit(config, text);
      });
    this.#peersChanged(vms, task.machine.record);
  }

  async waitTask(options: Parameter<"waitTask">): Promise<ExitResult> {
    const { exited } = this.#tasks.get(options.taskId);
    this.#lateEvents.get(options.taskId)?.();
    this.#lateEvents.delete(options.taskId);
    return await raceAbort(exited, options.signal);
  }

  async stopTask(options: Parameter<"stopTask">): Promise<void> {
    // Nomad repeats a failed stop for minutes. A task that does not exist counts as stopped.
    await this.#tasks.find(options.taskId)?.stop(options);
  }

  async destroyTask(options: Parameter<"destroyTask">): Promise<void> {
    const { taskId, force } = options;
    const vms = this.#knownVms();
    const task = this.#tasks.find(taskId);
    if (task !== undefined) {
      if (task.result === undefined && !force) throw new TaskRunningError({ taskId });
      await task.destroy();
      this.#tasks.remove(taskId);
      this.#peersChanged(vms, task.machine.record);
      return;
    }
    // After a failed recovery only the disk knows the VM.
    const vm = await vms.records.find((record) => taskLabels(record)?.taskId === taskId);
    if (vm === undefined) return;
    await removeMachine(vm, vms.records);
    this.#peersChanged(vms, vm.record);
  }

  async inspectTask(options: Parameter<"inspectTask">): Promise<TaskStatus> {
    const task = this.#tasks.get(options.taskId);
    const { record } = task.machine;
    return {
      id: task.id,
      name: task.name,
      state: task.result === undefined ? "running" : "exited",
      startedAt: task.startedAt,
      completedAt: task.completedAt,
      result: task.result,
      networkOverride: networkOverride(record.network),
      driverAttributes: await vmAttributes(record),
    };
  }

  taskStats(options: Parameter<"taskStats">): AsyncIterable<TaskStats> {
    const task = this.#tasks.get(options.taskId);
    const { coreMhz } = this.#knownVms();
    return taskStats({ task, intervalMs: options.intervalMs, coreMhz, signal: options.signal });
  }

  async signalTask(options: Parameter<"signalTask">): Promise<void> {
    const task = this.#tasks.get(options.taskId);
    await task.guest.sendSignal({ signalNumber: signalNumber(options.signalName) });
  }

  async execTask(options: Parameter<"execTask">): Promise<ExecResult> {
    return await execTask({ ...options, task: this.#tasks.get(options.taskId) });
  }

  execTaskStreaming(options: Parameter<"execTaskStreaming">): AsyncIterable<ExecOutput> {
    return execTaskStreaming({
      ...options,
      task: this.#tasks.get(options.taskId),
      onTimes: (times) => this.#logger.debug("exec session in ms", { task_id: options.taskId, ...times }),
    });
  }

  async shutdown(): Promise<void> {
    this.#closing.abort(new Error("the plugin is shutting down"));
  }

  async #inspect(): Promise<ReadyHost | UnreadyHost> {
    const state = this.#state;
    if (state.kind === "unconfigured") throw new NotReadyError({ reason: whyNotConfigured(state) });
    if (state.kind === "misconfigured") return { ready: false, health: "unhealthy", reason: whyNotConfigured(state) };
    const host = await state.host.look();
    if (host.ready) keepSpareDisk(host, state.settings);
    return host;
  }

  /** Open as long as the plugin lives; a later call replaces an earlier one. */
  #keepVms(records: VmRecords): void {
    this.#keeping.abort();
    this.#keeping = new AbortController();
    const signal = AbortSignal.any([this.#closing.signal, this.#keeping.signal]);
    const logger = this.#logger;
    void keepNetworks({ networks: records.networks, logger, signal });
    void keepSharedCores({ records, logger, signal });
  }

  #peersChanged({ peers }: KnownVms, record: MachineRecord): void {
    peers.changed(namespaceOf(record), this.#tasks.all());
  }

  async #sweep({ directories, records }: KnownVms): Promise<void> {
    try {
      // Records that somebody else wrote must not decide which processes end.
      await requireTrustedBase(directories);
      await removeSpareScratchDisks({ spareDirectory: directories.spareDisks });
      const { removed, failed } = await sweepMachines(records);
      for (const directory of removed)
        this.#logger.warn("removed a VM that an earlier plugin left half-started or half-ended", { directory });
      for (const { directory, error } of failed)
        this.#logger.error("can't remove a VM that an earlier plugin left half-started or half-ended", {
          directory,
          error: error.message,
        });
    } catch (error) {
      // The fingerprint reports a bad directory; an error here would keep the whole agent from starting.
      this.#logger.warn("can't clean up after an earlier plugin", { error: (error as Error).message });
    }
  }

  #emit(config: { id: string; allocId: string; name: string }, message: string): void {
    this.#events.push({ taskId: config.id, allocId: config.allocId, taskName: config.name, at: new Date(), message });
  }

  #vmsBelow(directories: HostDirectories, coreMhz: number): KnownVms {
    const state = this.#state;
    // A second configuration must not split the turns and reservations of one base path.
    if (state.kind !== "unconfigured" && state.vms.directories.machines === directories.machines) {
      return { ...state.vms, coreMhz };
    }
    const records = new VmRecords(directories.machines);
    const peers = new GroupPeers({ records, logger: this.#logger, signal: this.#closing.signal });
    return { directories, records, peers, coreMhz };
  }

  #knownVms(): KnownVms {
    if (this.#state.kind === "unconfigured") throw new NotReadyError({ reason: whyNotConfigured(this.#state) });
    return this.#state.vms;
  }
}

function whyNotConfigured(state: Exclude<PluginState, { kind: "configured" }>): string {
  return state.kind === "misconfigured" ? `plugin ${state.error.message}` : "Nomad has not configured the plugin yet";
}

/** For the next task, in the background: no call waits for it. */
function keepSpareDisk({ directories, machines }: ReadyHost, { disk }: PluginSettings): void {
  const { records } = machines;
  void records
    .directories()
    .then((vms) => keepSpareScratchDisk({ ...disk, spareDirectory: directories.spareDisks, machines: vms }));
}

function coreMhz(agent: AgentConfig): number {
  return agent.coreCount > 0 ? agent.totalMhz / agent.coreCount : 0;
}
