// The seam between Nomad's wire (src/nomad) and the driver: Nomad's verbs on tasks in plain types. Nomad's
// plugins/drivers/driver.go says what each verb must do; the wire layer translates, answers for missing parts, and maps errors.
import type { ExecInput } from "../guest/exec/input.ts";
import type { ExecOutput } from "../guest/exec/session.ts";
import type { HclSpec } from "./config/hcl-spec.ts";

export interface NomadDriver {
  readonly info: { readonly name: string; readonly version: string };
  configSchema(): HclSpec;
  taskConfigSchema(): HclSpec;
  capabilities(): DriverCapabilities;
  /** `agent` is absent in the two launches by which Nomad only validates: those must have no side effects. */
  setConfig(options: { config: unknown; agent: AgentConfig | undefined }): Promise<void>;
  /** Stays open until `signal` aborts. */
  fingerprint(signal: AbortSignal): AsyncIterable<Fingerprint>;
  /** Stays open until `signal` aborts. */
  taskEvents(signal: AbortSignal): AsyncIterable<TaskEvent>;
  startTask(options: { config: TaskConfig; signal: AbortSignal }): Promise<TaskHandle>;
  recoverTask(options: { config: TaskConfig; driverState: Uint8Array; signal: AbortSignal }): Promise<void>;
  waitTask(options: { taskId: string; signal: AbortSignal }): Promise<ExitResult>;
  stopTask(options: { taskId: string; timeoutMs: number; signalName: string }): Promise<void>;
  destroyTask(options: { taskId: string; force: boolean }): Promise<void>;
  inspectTask(options: { taskId: string }): Promise<TaskStatus>;
  /** Stays open until the task has ended or `signal` aborts. */
  taskStats(options: { taskId: string; intervalMs: number; signal: AbortSignal }): AsyncIterable<TaskStats>;
  signalTask(options: { taskId: string; signalName: string }): Promise<void>;
  execTask(options: {
    taskId: string;
    command: readonly string[];
    timeoutMs: number;
    signal: AbortSignal;
  }): Promise<ExecResult>;
  execTaskStreaming(options: {
    taskId: string;
    command: readonly string[];
    terminal: boolean;
    /** Ends when the call is over. */
    input: AsyncIterable<ExecInput>;
    signal: AbortSignal;
  }): AsyncIterable<ExecOutput>;
  /** The plugin is about to exit; VMs go on. */
  shutdown(): Promise<void>;
}

export interface DriverCapabilities {
  readonly sendSignals: boolean;
  readonly exec: boolean;
  readonly fsIsolation: "none" | "chroot" | "image";
  readonly networkIsolationModes: readonly ("host" | "group" | "task" | "none")[];
  /** Host and CSI volumes. */
  readonly mountConfigs: boolean;
}

export interface AgentConfig {
  /** Sum over all cores in MHz, 0 when unknown. */
  readonly totalMhz: number;
  readonly coreCount: number;
}

export interface Fingerprint {
  readonly health: "undetected" | "unhealthy" | "healthy";
  readonly description: string;
  /** Whole names, "driver.NAME.x". The empty string deletes an attribute. */
  readonly attributes: Readonly<Record<string, string | number | boolean>>;
}

export interface TaskEvent {
  readonly taskId: string;
  readonly allocId: string;
  readonly taskName: string;
  readonly at: Date;
  readonly message: string;
}

export interface TaskConfig {
  /** `<alloc uuid>/<task name>/<8 hex digits>`, new for every start. */
  readonly id: string;
  readonly name: string;
  readonly allocId: string;
  /** The task's `config` block as Nomad decoded it; undefined after an agent restart. */
  readonly driverConfig: unknown;
  readonly env: Readonly<Record<string, string>>;
  readonly user: string;
  /** The allocation's own directory on the host, the parent of the directory that its tasks share. */
  readonly allocDirectory: string;
  /** FIFOs beneath it, or /dev/null. */
  readonly stdoutPath: string;
  readonly stderrPath: string;
  readonly resources: {
    /** MHz granted. */
    readonly cpuMhz: number;
    /** Reserved core ids, comma-separated, or empty. */
    readonly cpusetCpus: string;
    /** The cgroup that Nomad made for the task's cores, or the one of tasks without; empty if there is none. */
    readonly cpusetCgroup: string;
    readonly memoryMib: number;
    /** 0 without oversubscription. */
    readonly memoryMaxMib: number;
  };
  /** The group's network namespace; undefined if tasks are in the host's. */
  readonly networkNamespacePath: string | undefined;
  /** From the group's network block; `to` is 0 if the job gives none. */
  readonly ports: readonly {
    readonly label: string;
    readonly hostPort: number;
    readonly to: number;
    readonly hostIp: string;
  }[];
  readonly dns:
    | { readonly servers: readonly string[]; readonly searches: readonly string[]; readonly options: readonly string[] }
    | undefined;
}

export interface TaskHandle {
  /** Nomad keeps it for the driver and gives it to `recoverTask`. */
  readonly driverState: Uint8Array;
  readonly networkOverride?: NetworkOverride | undefined;
}

/** The network of a task whose driver made one: the address with which Nomad registers its services. */
export interface NetworkOverride {
  readonly address: string;
  readonly portMap: Readonly<Record<string, number>>;
  /** Services with address_mode = "auto" take `address` rather than the host's. */
  readonly autoAdvertise: boolean;
}

export interface ExitResult {
  readonly exitCode: number;
  /** 0, or the signal that ended the task. */
  readonly signal: number;
  readonly oomKilled: boolean;
  /** The reason if there is no exit status of the workload's own. */
  readonly error?: string | undefined;
}

export interface TaskStatus {
  readonly id: string;
  readonly name: string;
  readonly state: "running" | "exited";
  readonly startedAt: Date;
  readonly completedAt: Date | undefined;
  readonly result: ExitResult | undefined;
  readonly driverAttributes: Readonly<Record<string, string>>;
  readonly networkOverride?: NetworkOverride | undefined;
}

export interface TaskStats {
  readonly at: Date;
  readonly cpu: {
    /** 100 is one whole core. */
    readonly percent: number;
    readonly userPercent: number;
    readonly systemPercent: number;
    /** MHz. */
    readonly totalTicks: number;
  };
  readonly memory: {
    readonly rssBytes: number;
    readonly cacheBytes: number;
    readonly usageBytes: number;
    readonly maxUsageBytes: number;
    readonly kernelUsageBytes: number;
    readonly swapBytes: number;
  };
  /** Keyed by the pid that the task sees. The VM's own processes on the host have their name and pid as key. */
  readonly processes: ReadonlyMap<string, ProcessStats>;
}

export interface ProcessStats {
  readonly userPercent: number;
  readonly systemPercent: number;
  readonly rssBytes: number;
}

export interface ExecResult {
  readonly stdout: Uint8Array;
  readonly stderr: Uint8Array;
  readonly exitCode: number;
  readonly signal: number;
}
