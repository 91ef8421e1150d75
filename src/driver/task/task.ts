// One running (or ended) task: a machine and the facts that Nomad wants about it.
import type { GuestClient } from "../../guest/client.ts";
import type { Machine } from "../../machine/machine.ts";
import type { MachineExit } from "../../machine/records/exit-record.ts";
import { within } from "../../system/wait.ts";
import type { ExitResult } from "../nomad-driver.ts";
import { signalNumber } from "./signals.ts";

const killWaitMs = 5_000;
/** The guest waits as long for the readers of its sessions, from the task's end on. */
const sessionsWaitMs = 5_000;
const kill = 9;
const defaultStopSignal = "SIGTERM";

/** The part of a Machine that a task needs. */
export type TaskMachine = Pick<
  Machine,
  "record" | "guest" | "exited" | "ended" | "hostProcesses" | "markKilled" | "kill" | "destroy" | typeof Symbol.dispose
>;

export interface TaskOptions {
  readonly id: string;
  readonly name: string;
  readonly machine: TaskMachine;
  readonly startedAt: Date;
  /** The image's; empty for docker's default, SIGTERM. */
  readonly stopSignal: string;
}

export class Task {
  readonly id: string;
  readonly name: string;
  readonly machine: TaskMachine;
  readonly startedAt: Date;
  /** Never rejects. */
  readonly exited: Promise<ExitResult>;
  readonly #stopSignal: string;
  #result: ExitResult | undefined;
  #completedAt: Date | undefined;
  /** One for each exec session, until the driver has all of the guest's output. */
  readonly #sessions = new Set<Promise<void>>();

  constructor(options: TaskOptions) {
    this.id = options.id;
    this.name = options.name;
    this.machine = options.machine;
    this.startedAt = options.startedAt;
    this.#stopSignal = options.stopSignal === "" ? defaultStopSignal : options.stopSignal;
    this.exited = options.machine.exited.then((exit) => {
      this.#completedAt = new Date();
      this.#result = this.#toResult(exit);
      return this.#result;
    });
  }

  get guest(): GuestClient {
    return this.machine.guest;
  }

  get result(): ExitResult | undefined {
    return this.#result;
  }

  get completedAt(): Date | undefined {
    return this.#completedAt;
  }

  /** Signal, patience, then SIGKILL in the guest; if the guest does not answer, the end of the whole VM. Idempotent. */
  async stop(options: { timeoutMs: number; signalName: string }): Promise<void> {
    if (this.#result !== undefined) return;
    const number = signalNumber(options.signalName === "" ? this.#stopSignal : options.signalName);
    if (options.timeoutMs > 0) {
      const reached = await this.#sendSignal(number);
      if (reached && (await this.#exitsWithin(options.timeoutMs))) return;
    }
    // On record before the first kill: this process may die before the end is.
    await this.machine.markKilled();
    if ((await this.#sendSignal(kill)) && (await this.#exitsWithin(killWaitMs))) return;
    await this.machine.kill();
    await this.exited;
  }

  /** The caller calls the result when the guest has no more output for the session. */
  sessionOpened(): () => void {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#sessions.add(promise);
    return () => {
      this.#sessions.delete(promise);
      resolve();
    };
  }

  /**
   * Kills the task and removes everything of the VM. If the task has ended by itself, first takes the output that its
   * sessions have not read yet.
   */
  async destroy(): Promise<void> {
    if (this.#result !== undefined) await within(Promise.all(this.#sessions), sessionsWaitMs);
    await this.machine.destroy();
  }

  async #sendSignal(number: number): Promise<boolean> {
    try {
      await this.guest.sendSignal({ signalNumber: number, all: number === kill });
      return true;
    } catch {
      // A guest that can't be reached is killed from outside. A guest without a task reports the exit.
      return false;
    }
  }

  async #exitsWithin(timeoutMs: number): Promise<boolean> {
    return await within(this.exited, timeoutMs);
  }

  #toResult(exit: MachineExit): ExitResult {
    if (exit.kind === "task") {
      const { exitCode, signal, oomKilled } = exit;
      return { exitCode, signal, oomKilled, error: outOfMemory(exit) };
    }
    if (exit.kind === "killed") return { exitCode: 128 + kill, signal: kill, oomKilled: false };
    return { exitCode: 1, signal: 0, oomKilled: false, error: exit.reason };
  }
}

/** Nomad shows the text beside the exit code. A task that succeeds all the same has none, since the text would fail it. */
function outOfMemory(exit: { exitCode: number; oomKilled: boolean; oomKills: number }): string | undefined {
  // docker's words.
  if (exit.oomKilled) return "OOM Killed";
  if (exit.oomKills === 0 || exit.exitCode === 0) return undefined;
  const what = exit.oomKills === 1 ? "a child process was" : `${exit.oomKills} child processes were`;
  return `not OOM killed itself, but ${what}; raise the task's memory`;
}
