// Waiting for something that gives no event, or none that can be relied on alone, with a deadline and an abort signal.
import { setTimeout as delay } from "node:timers/promises";
import { DirectoryChanges } from "./directory-changes.ts";

export interface PollOptions<T> {
  /** Called until it gives something else than undefined. */
  readonly attempt: () => Promise<T | undefined>;
  readonly intervalMs: number;
  /** A change in this directory makes for the next attempt at once. */
  readonly directory?: string | undefined;
  readonly timeoutMs: number;
  /** Decides in the place of `timeoutMs` when it is over. */
  readonly deadline?: AbortSignal | undefined;
  /** The error to throw at the deadline. */
  readonly onTimeout: () => Error;
  readonly signal?: AbortSignal | undefined;
}

export async function pollUntil<T>(options: PollOptions<T>): Promise<T> {
  const { deadline, directory, signal } = options;
  using changes = directory === undefined ? undefined : new DirectoryChanges(directory);
  const end = performance.now() + options.timeoutMs;
  const isOver = (): boolean => (deadline === undefined ? performance.now() >= end : deadline.aborted);
  for (;;) {
    signal?.throwIfAborted();
    const changed = changes?.next;
    const result = await options.attempt();
    if (result !== undefined) return result;
    if (isOver()) throw options.onTimeout();
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
