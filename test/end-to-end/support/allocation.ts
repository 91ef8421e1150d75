// Jobs of one task, written as a user writes them, and the allocation that runs.
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type Agent, driverName } from "./agent.ts";
import type { CommandResult } from "./command.ts";
import { bootTimeoutMs } from "./environment.ts";
import { Terminal } from "./terminal.ts";
import { waitFor } from "./wait.ts";

export interface JobOptions {
  readonly agent: Agent;
  /** HCL lines of the task's config block. */
  readonly config: string;
  /** HCL lines of the task beside config: env, user, kill_timeout. */
  readonly task?: string;
  /** HCL lines of the group beside its task: network. */
  readonly group?: string;
  readonly type?: "batch" | "service";
  /** Default: ours. */
  readonly driver?: string;
  readonly memoryMib?: number;
  /** Reserved cores, in place of MHz. Default: none. */
  readonly cores?: number;
  /** How often Nomad may start the task again. Default: never. */
  readonly restarts?: number;
}

interface TaskEvent {
  readonly Type: string;
  readonly DisplayMessage: string;
  readonly ExitCode: number;
  readonly Signal: number;
  readonly Details: Readonly<Record<string, string>> | null;
}

interface AllocationDocument {
  readonly ClientStatus: string;
  readonly TaskStates: Readonly<
    Record<string, { readonly Events: readonly TaskEvent[]; readonly State: string; readonly StartedAt?: string }>
  > | null;
}

const taskName = "main";
let jobs = 0;

/** Resolves when the job has an allocation. */
export async function startJob(options: JobOptions): Promise<Allocation> {
  const { agent } = options;
  jobs += 1;
  const job = `e2e-${jobs}`;
  const file = join(agent.directory, `${job}.nomad`);
  const text = `
    job "${job}" {
      type = "${options.type ?? "batch"}"
      group "group" {
        ${options.group ?? ""}
        restart {
          attempts = ${options.restarts ?? 0}
          delay    = "1s"
          mode     = "fail"
        }
        reschedule {
          attempts  = 0
          unlimited = false
        }
        task "${taskName}" {
          driver = "${options.driver ?? driverName}"
          ${options.task ?? ""}
          config {
            ${options.config}
          }
          resources {
            ${options.cores === undefined ? "cpu = 50" : `cores = ${options.cores}`}
            memory = ${options.memoryMib ?? 192}
          }
        }
      }
    }
  `;
  await writeFile(file, text);
  const submitted = await agent.nomad(["job", "run", "-detach", file]);
  if (submitted.exitCode !== 0) throw new Error(`nomad job run: ${submitted.stderr}${submitted.stdout}`);
  const id = await waitFor({
    what: `an allocation of ${job}`,
    timeoutMs: 30_000,
    attempt: async () => ((await agent.get(`/v1/job/${job}/allocations`)) as { ID: string }[])[0]?.ID,
    seen: async () => (await agent.nomad(["job", "status", job])).stdout,
  });
  return new Allocation({ agent, job, id });
}

/** Runs a batch job to its end; `runTimeoutMs` is for one that runs for long. */
export async function runJob(options: JobOptions & { readonly runTimeoutMs?: number }): Promise<Allocation> {
  const allocation = await startJob(options);
  await allocation.waitForEnd(options.runTimeoutMs);
  return allocation;
}

/** Starts a service and waits until its task runs. */
export async function runService(options: JobOptions): Promise<Allocation> {
  const allocation = await startJob({ type: "service", ...options });
  await allocation.waitForStatus(["running"]);
  return allocation;
}

export class Allocation {
  readonly agent: Agent;
  readonly job: string;
  readonly id: string;
  readonly taskName: string = taskName;

  constructor(options: { agent: Agent; job: string; id: string }) {
    this.agent = options.agent;
    this.job = options.job;
    this.id = options.id;
  }

  async document(): Promise<AllocationDocument> {
    return (await this.agent.get(`/v1/allocation/${this.id}`)) as AllocationDocument;
  }

  async status(): Promise<string> {
    return (await this.document()).ClientStatus;
  }

  async events(): Promise<readonly TaskEvent[]> {
    return (await this.document()).TaskStates?.[taskName]?.Events ?? [];
  }

  /** All that Nomad tells the user about the task, one event a line. */
  async eventText(): Promise<string> {
    return (await this.events()).map((event) => `${event.Type}: ${event.DisplayMessage}`).join("\n");
  }

  /** Fails at once if the allocation ends with a status that is not among `wanted`. */
  async waitForStatus(wanted: readonly string[], timeoutMs: number = bootTimeoutMs): Promise<string> {
    return await waitFor({
      what: `allocation ${this.id} to be ${wanted.join(" or ")}`,
      timeoutMs,
      attempt: async () => {
        const status = await this.status();
        if (wanted.includes(status)) return status;
        if (["complete", "failed", "lost"].includes(status)) {
          throw new Error(`the allocation is ${status}, not ${wanted.join(" or ")}:\n${await this.eventText()}`);
        }
        return undefined;
      },
      seen: () => this.eventText(),
    });
  }

  async waitForEnd(timeoutMs?: number): Promise<string> {
    return await this.waitForStatus(["complete", "failed", "lost"], timeoutMs);
  }

  /** The exit code of the task, and the signal that ended it (0 for none). */
  async exit(): Promise<{ exitCode: number; signal: number }> {
    await this.waitForEnd();
    const ended = (await this.events()).find((event) => event.Type === "Terminated");
    if (ended === undefined) throw new Error(`the task never ran:\n${await this.eventText()}`);
    return { exitCode: ended.ExitCode, signal: ended.Signal };
  }

  async log(stream: "stdout" | "stderr" = "stdout"): Promise<string> {
    const query = new URLSearchParams({ task: taskName, type: stream, plain: "true", origin: "start" });
    return await this.agent.getText(`/v1/client/fs/logs/${this.id}?${query.toString()}`);
  }

  /** Nomad ships output with a delay; the end of a task does not wait for it. */
  async waitForLog(
    pattern: RegExp,
    options: { stream?: "stdout" | "stderr"; timeoutMs?: number } = {},
  ): Promise<RegExpExecArray> {
    let last = "";
    return await waitFor({
      what: `${pattern} in the log`,
      timeoutMs: options.timeoutMs ?? bootTimeoutMs,
      attempt: async () => {
        last = await this.log(options.stream).catch(() => "");
        return pattern.exec(last) ?? undefined;
      },
      seen: async () => `${JSON.stringify(last.slice(-2000))}\n${await this.eventText()}`,
    });
  }

  async exec(argv: readonly string[], options: { stdin?: string; timeoutMs?: number } = {}): Promise<CommandResult> {
    return await this.agent.nomad(["alloc", "exec", "-task", taskName, this.id, ...argv], options);
  }

  /** A restarted agent reports a task from its own state before it has the task back, and refuses exec until then. */
  async waitForExec(timeoutMs = 30_000): Promise<void> {
    let last = "";
    await waitFor({
      what: "exec to work",
      timeoutMs,
      attempt: async () => {
        const { exitCode, stderr } = await this.exec(["true"]);
        last = stderr;
        return exitCode === 0 || undefined;
      },
      seen: () => last,
    });
  }

  /** `nomad alloc exec -i -t` in a terminal of 24 rows and 80 columns. */
  openTerminal(argv: readonly string[]): Terminal {
    return new Terminal({ agent: this.agent, args: ["alloc", "exec", "-i", "-t", this.id, ...argv] });
  }

  /** Resolves when the job is stopped and its task over. */
  async stop(): Promise<void> {
    await this.agent.nomad(["job", "stop", "-detach", "-yes", this.job]);
    await this.waitForEnd(60_000);
  }
}
