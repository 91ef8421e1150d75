// The tasks that this process knows. A start takes its task's id at the beginning, so that two starts of one id can't
// both boot a VM.
import { TaskExistsError, TaskNotFoundError } from "../errors.ts";
import type { Task } from "./task.ts";

export class TaskTable {
  readonly #tasks = new Map<string, Task>();
  readonly #starting = new Set<string>();

  all(): Iterable<Task> {
    return this.#tasks.values();
  }

  find(taskId: string): Task | undefined {
    return this.#tasks.get(taskId);
  }

  /** Fails with TaskNotFoundError. */
  get(taskId: string): Task {
    const task = this.#tasks.get(taskId);
    if (task === undefined) throw new TaskNotFoundError({ taskId });
    return task;
  }

  /** Runs `start` unless the id is taken; fails with TaskExistsError or as `start` does. */
  async add(taskId: string, start: () => Promise<Task>): Promise<Task> {
    if (this.#tasks.has(taskId) || this.#starting.has(taskId)) throw new TaskExistsError({ taskId });
    this.#starting.add(taskId);
    try {
      const task = await start();
      this.#tasks.set(taskId, task);
      return task;
    } finally {
      this.#starting.delete(taskId);
    }
  }

  remove(taskId: string): void {
    this.#tasks.delete(taskId);
  }
}
