// The driver: Nomad's verbs on tasks. It holds nothing that can't be found again on disk; it may die at any time.

import { keepSpareScratchDisk, removeSpareScratchDisks } from "../machine/create/scratch-disk.ts";
import { keepNetworks } from "../machine/keep-networks.ts";
import { findMachineByLabel, sweepUnfinishedMachines } from "../machine/records/machine-store.ts";
import type { MachineRecord } from "../machine/records/manifest.ts";
import { BootTimeline } from "../machine/timeline.ts";
import type { Logger } from "../system/logger.ts";
import { AsyncQueue, raceAbort } from "../system/wait.ts";
import { driverName, version } from "../version.ts";
import type { HclSpec } from "./config/hcl-spec.ts";
import { basePathOf, type PluginSettings, parsePluginConfig } from "./config/plugin/plugin-config.ts";
import { pluginConfigSchema, taskConfigSchema } from "./config/schemas.ts";
import { type ConfigError, NotReadyError, TaskRunningError } from "./errors.ts";
import { fingerprints } from "./host/fingerprint.ts";
import { hostDirectories, inspectHost, type ReadyHost, type UnreadyHost } from "./host/inspect-host.ts";
import type {
  AgentConfig,
  DriverCapabilities,
  ExecOutput,
  ExecResult,
  ExitResult,
  Fingerprint,
  NomadDriver,
  StartedTask,
  TaskEvent,
  TaskStats,
  TaskStatus,
} from "./nomad-driver.ts";
import { scratchSizeMib, startTask } from "./start/start-task.ts";
import { networkOverride } from "./start/task-network.ts";
import { execTask, execTaskStreaming } from "./task/exec-task.ts";
import { GroupPeers, namespaceOf } from "./task/group-peers.ts";
import { encodeDriverState, recoverTask } from "./task/recover-task.ts";
import { signalNumber } from "./task/signals.ts";
import { taskStats } from "./task/task-stats.ts";
import { TaskTable } from "./task/task-table.ts";
import { vmAttributes } from "./task/vm-attributes.ts";

type Parameter<Method extends keyof NomadDriver> = NomadDriver[Method] extends (options: infer Options) => unknown
  ? Options
  : never;

const notConfigured = "Nomad has not configured the plugin yet";

export class LitegixDriver implements NomadDriver {
  readonly info = { name: driverName, version };
  readonly #logger: Logger;
  readonly #tasks = new TaskTable();
  readonly #events = new AsyncQueue<TaskEvent>({ limit: 1000 });
  readonly #closing = new AbortController();
  #settings: PluginSettings | undefined;
  #misconfigured: ConfigError | undefined;
  /** Known of a plugin that is misconfigured too: what runs is recovered and ended all the same. */
  #basePath: string | undefined;
  #keeping = new AbortController();
  #coreMhz = 0;
  #peers: GroupPeers | undefined;
  #host: Promise<ReadyHost | UnreadyHost> | undefined;

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
    const { agent } = options;
    if (agent === undefined) return;
    this.#coreMhz = coreMhz(agent);
    this.#basePath = basePathOf(options.config);
    try {
      this.#settings = parsePluginConfig(options.config);
    } catch (error) {
      // Failing here would keep the whole agent, with its other drivers, from starting.
      this.#misconfigured = error as ConfigError;
      return;
    }
    await this.#sweep(this.#settings);
  }

  async *fingerprint(signal: AbortSignal): AsyncGenerator<Fingerprint, void, undefined> {
    // Asked of the plugin that runs tasks only, not of those that an agent starts to look at.
    if (this.#settings !== undefined) this.#keepNetworks(this.#settings);
    for await (const fingerprint of fingerprints({ inspect: () => this.#inspect(), signal })) {
      const { health, description, attributes } = fingerprint;
      this.#logger.info("looked at the host", { health, description, ...attributes });
      yield fingerprint;
    }
  }

  taskEvents(signal: AbortSignal): AsyncIterable<TaskEvent> {
    return this.#events.read(signal);
  }

  async startTask(options: Parameter<"startTask">): Promise<StartedTask> {
    const { config } = options;
    const host = await (this.#host ?? this.#inspect());
    if (!host.ready) throw new NotReadyError({ reason: host.reason });
    const timeline = new BootTimeline();
    const task = await this.#tasks.add(config.id, () =>
      startTask({
        config,
        settings: this.#requireSettings(),
        host,
        coreMhz: this.#coreMhz,
        onEvent: (message) => this.#emit(config, message),
        timeline,
        signal: AbortSignal.any([options.signal, this.#closing.signal]),
      }),
    );
    this.#logger.info("started task", { task_id: config.id, vm: task.machine.record.id });
    this.#logger.debug("start timeline in ms", { task_id: config.id, steps: timeline.steps });
    this.#keepSpareDisk();
    this.#peersChanged(task.machine.record);
    const { id, network } = task.machine.record;
    return { driverState: encodeDriverState(id), networkOverride: networkOverride(network) };
  }

  async recoverTask(options: Parameter<"recoverTask">): Promise<void> {
    const { config, driverState } = options;
    if (this.#tasks.find(config.id) !== undefined) return;
    const machinesDirectory = this.#machinesDirectory();
    const task = await this.#tasks.add(config.id, () =>
      recoverTask({ taskId: config.id, taskName: config.name, driverState, machinesDirectory }),
    );
    this.#logger.info("recovered task", { task_id: config.id, vm: task.machine.record.id });
    this.#peersChanged(task.machine.record);
  }

  async waitTask(options: Parameter<"waitTask">): Promise<ExitResult> {
    return await raceAbort(this.#tasks.get(options.taskId).exited, options.signal);
  }

  async stopTask(options: Parameter<"stopTask">): Promise<void> {
    // Nomad repeats a failed stop for minutes: a task that is not there has been stopped.
    await this.#tasks.find(options.taskId)?.stop(options);
  }

  async destroyTask(options: Parameter<"destroyTask">): Promise<void> {
    const { taskId, force } = options;
    const task = this.#tasks.find(taskId);
    if (task !== undefined) {
      if (task.result === undefined && !force) throw new TaskRunningError({ taskId });
      await task.destroy();
      this.#tasks.remove(taskId);
      this.#peersChanged(task.machine.record);
      return;
    }
    // After a recovery that failed only the disk knows the VM.
    const machine = await findMachineByLabel({
      machinesDirectory: this.#machinesDirectory(),
      label: "taskId",
      value: taskId,
    });
    if (machine === undefined) return;
    await machine.destroy();
    this.#peersChanged(machine.record);
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
    return taskStats({ task, intervalMs: options.intervalMs, coreMhz: this.#coreMhz, signal: options.signal });
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
    if (this.#misconfigured !== undefined) {
      return { ready: false, health: "unhealthy", reason: `plugin ${this.#misconfigured.message}` };
    }
    this.#host = inspectHost({ settings: this.#requireSettings(), signal: this.#closing.signal });
    const host = await this.#host;
    if (host.ready) this.#keepSpareDisk();
    return host;
  }

  /** For the next task; in the background, and nobody waits for it. */
  #keepSpareDisk(): void {
    const { spareDisks } = hostDirectories(this.#requireSettings().basePath);
    void keepSpareScratchDisk({ spareDirectory: spareDisks, sizeMib: scratchSizeMib });
  }

  /** As long as the plugin lives; a later call takes an earlier one's place. */
  #keepNetworks(settings: PluginSettings): void {
    this.#keeping.abort();
    this.#keeping = new AbortController();
    void keepNetworks({
      machinesDirectory: this.#machinesDirectory(),
      allowMetadata: settings.network.allowMetadata,
      logger: this.#logger,
      signal: AbortSignal.any([this.#closing.signal, this.#keeping.signal]),
    });
  }

  #peersChanged(record: MachineRecord): void {
    this.#peers ??= new GroupPeers({
      machinesDirectory: this.#machinesDirectory(),
      logger: this.#logger,
      signal: this.#closing.signal,
    });
    this.#peers.changed(namespaceOf(record), this.#tasks.all());
  }

  async #sweep(settings: PluginSettings): Promise<void> {
    const { machines, spareDisks } = hostDirectories(settings.basePath);
    try {
      await removeSpareScratchDisks({ spareDirectory: spareDisks });
      const { removed, failed } = await sweepUnfinishedMachines({ machinesDirectory: machines });
      for (const directory of removed)
        this.#logger.warn("removed a VM that an earlier plugin left half-way", { directory });
      for (const { directory, error } of failed)
        this.#logger.error("can't remove a VM that an earlier plugin left half-way", {
          directory,
          error: error.message,
        });
    } catch (error) {
      // What is wrong with the directory, the fingerprint tells; failing here would keep the whole agent from starting.
      this.#logger.warn("can't clean up after an earlier plugin", { error: (error as Error).message });
    }
  }

  #emit(config: { id: string; allocId: string; name: string }, message: string): void {
    this.#events.push({ taskId: config.id, allocId: config.allocId, taskName: config.name, at: new Date(), message });
  }

  #machinesDirectory(): string {
    if (this.#basePath === undefined) throw new NotReadyError({ reason: notConfigured });
    return hostDirectories(this.#basePath).machines;
  }

  #requireSettings(): PluginSettings {
    if (this.#settings === undefined) throw new NotReadyError({ reason: notConfigured });
    return this.#settings;
  }
}

function coreMhz(agent: AgentConfig): number {
  return agent.coreCount > 0 ? agent.totalMhz / agent.coreCount : 0;
}
