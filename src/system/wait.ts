// Waiting, always with an abort signal: for a condition, for a promise, for a slot, for one's turn, for a queue's next value.
import { type FSWatcher, watch } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";

export interface PollOptions<T> {
  /** Called until it returns something other than undefined. */
  readonly attempt: () => Promise<T | undefined>;
  readonly intervalMs: number;
  /** A change in this directory brings the next attempt at once. */
  readonly directory?: string | undefined;
  readonly timeoutMs: number;
  /** Replaces `timeoutMs`. */
  readonly deadline?: AbortSignal | undefined;
  /** The error to throw at the deadline, with the time that has really passed. */
  readonly onTimeout: (elapsedMs: number) => Error;
  readonly signal?: AbortSignal | undefined;
}

export async function pollUntil<T>(options: PollOptions<T>): Promise<T> {
  const { deadline, directory, signal } = options;
  using changes = directory === undefined ? undefined : new DirectoryChanges(directory);
  const start = performance.now();
  for (;;) {
    signal?.throwIfAborted();
    const changed = changes?.next;
    const result = await options.attempt();
    if (result !== undefined) return result;
    const elapsedMs = performance.now() - start;
    if (deadline?.aborted ?? elapsedMs >= options.timeoutMs) throw options.onTimeout(elapsedMs);
    await pause({ intervalMs: options.intervalMs, changed, signal });
  }
}

async function pause(options: {
  intervalMs: number;
  changed: Promise<void> | undefined;
  signal: AbortSignal | undefined;
}): Promise<void> {
  const { intervalMs, changed, signal } = options;
  const woken = new AbortController();
  void changed?.then(() => woken.abort());
  const either = signal === undefined ? woken.signal : AbortSignal.any([signal, woken.signal]);
  try {
    await delay(intervalMs, undefined, { signal: either });
  } catch {
    signal?.throwIfAborted();
  }
}

/** Reports when something in a directory appears, goes or changes. */
class DirectoryChanges implements Disposable {
  readonly #watcher: FSWatcher | undefined;
  #next = Promise.withResolvers<void>();

  /** If a directory can't be watched (the host has no inotify watch left), the interval decides alone. */
  constructor(directory: string) {
    try {
      this.#watcher = watch(directory, { persistent: false }, () => this.#tell());
      this.#watcher.on("error", () => undefined);
    } catch {
      this.#watcher = undefined;
    }
  }

  /** Resolves at the first change from now on. To miss none: take it, look, then wait. */
  get next(): Promise<void> {
    return this.#next.promise;
  }

  [Symbol.dispose](): void {
    this.#watcher?.close();
  }

  #tell(): void {
    this.#next.resolve();
    this.#next = Promise.withResolvers();
  }
}

/** The promise's end, or the signal's reason if it aborts first; no listener is left behind. */
export async function raceAbort<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  const aborted = Promise.withResolvers<never>();
  const onAbort = (): void => aborted.reject(signal.reason);
  signal.addEventListener("abort", onAbort);
  try {
    return await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

/** Resolves with true if the promise is fulfilled in time. Rejects as it does. */
export async function within(promise: Promise<unknown>, timeoutMs: number): Promise<boolean> {
  const timer = Promise.withResolvers<false>();
  const timeout = setTimeout(() => timer.resolve(false), timeoutMs);
  try {
    return await Promise.race([promise.then(() => true), timer.promise]);
  } finally {
    clearTimeout(timeout);
  }
}

/**
 * At most `count` at a time, first come, first served: for work that would only slow itself down if done all at once.
 */
export class Slots {
  #free: number;
  readonly #waiting = new Set<() => void>();

  constructor(count: number) {
    this.#free = count;
  }

  /** True if `take` would resolve at once. */
  get hasFree(): boolean {
    return this.#free > 0;
  }

  /** Resolves when a slot is free; disposing frees it again, once. Rejects with the signal's reason. */
  async take(signal: AbortSignal): Promise<Disposable> {
    signal.throwIfAborted();
    if (this.#free > 0) this.#free -= 1;
    else await this.#wait(signal);
    let held = true;
    return {
      [Symbol.dispose]: () => {
        if (held) this.#giveBack();
        held = false;
      },
    };
  }

  async #wait(signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.add(resolve);
    try {
      await raceAbort(promise, signal);
    } catch (error) {
      // A slot that was handed over in the same moment goes to the next.
      if (!this.#waiting.delete(resolve)) this.#giveBack();
      throw error;
    }
  }

  #giveBack(): void {
    const [next] = this.#waiting;
    if (next === undefined) {
      this.#free += 1;
      return;
    }
    this.#waiting.delete(next);
    next();
  }
}

/** One at a time for each key, in the order of the calls; a turn that fails does not hold up the next. */
export class KeyedTurns {
  readonly #last = new Map<string, Promise<unknown>>();

  async take<T>(key: string, work: () => Promise<T>): Promise<T> {
    const before = this.#last.get(key) ?? Promise.resolve();
    const turn = before.then(work, work);
    this.#last.set(key, turn);
    try {
      return await turn;
    } finally {
      if (this.#last.get(key) === turn) this.#last.delete(key);
    }
  }
}

/** Values pushed from anywhere, pulled by any number of readers in turn; bounded, since a reader may be gone for long. */
export class AsyncQueue<T> {
  readonly #limit: number;
  #values: T[] = [];
  #wake: PromiseWithResolvers<void> = Promise.withResolvers();

  constructor(options: { limit: number }) {
    this.#limit = options.limit;
  }

  /** Over the limit the oldest value is dropped. */
  push(value: T): void {
    this.#values.push(value);
    if (this.#values.length > this.#limit) this.#values.shift();
    this.#wake.resolve();
  }

  /** Ends when `signal` aborts. */
  async *read(signal: AbortSignal): AsyncGenerator<T, void, undefined> {
    const onAbort = (): void => this.#wake.resolve();
    signal.addEventListener("abort", onAbort);
    try {
      while (!signal.aborted) {
        const value = this.#values.shift();
        if (value !== undefined) {
          yield value;
          continue;
        }
        this.#wake = Promise.withResolvers();
        await this.#wake.promise;
      }
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }
}
