// Waiting by polling until a deadline; the message says what was last seen.
import { setTimeout as delay } from "node:timers/promises";

export interface WaitOptions<T> {
  readonly what: string;
  readonly timeoutMs: number;
  readonly intervalMs?: number;
  /** Undefined means not yet. */
  readonly attempt: () => Promise<T | undefined> | T | undefined;
  /** The last observation, for the message. */
  readonly seen?: () => Promise<string> | string;
}

export async function waitFor<T>(options: WaitOptions<T>): Promise<T> {
  const deadline = performance.now() + options.timeoutMs;
  for (;;) {
    const result = await options.attempt();
    if (result !== undefined) return result;
    if (performance.now() > deadline) {
      const seen = options.seen === undefined ? "" : `; last seen: ${await options.seen()}`;
      throw new Error(`waited ${options.timeoutMs / 1000} s for ${options.what}${seen}`);
    }
    await delay(options.intervalMs ?? 100);
  }
}
