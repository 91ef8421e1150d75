// The deadline for a VM's boot, in the VMM's own time: time in which its threads wait for a CPU does not count, at most for three
// times the limit. A busy host makes a boot slow, which does not mean that the guest hangs; a guest that sleeps or spins uses up
// its time. Host programs have plain deadlines. Source: /proc/PID/task/TID/schedstat (the kernel's
// Documentation/scheduler/sched-stats.rst); without that file, which every distribution has, the wall clock counts.
import { readdir, readFile } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";

const intervalMs = 200;
/** By the wall clock, in limits. */
const maxTimes = 3;

export interface OwnTimeOptions {
  readonly pid: number;
  readonly timeoutMs: number;
}

/** Aborts once the process has had `timeoutMs`. A process that is gone does not wait for a CPU. */
export class OwnTimeDeadline implements Disposable {
  readonly #passed = new AbortController();
  readonly #options: OwnTimeOptions;

  constructor(options: OwnTimeOptions) {
    this.#options = options;
    void this.#run();
  }

  get signal(): AbortSignal {
    return this.#passed.signal;
  }

  [Symbol.dispose](): void {
    this.#passed.abort(new Error("no longer waited for"));
  }

  async #run(): Promise<void> {
    const { pid, timeoutMs } = this.#options;
    const start = performance.now();
    let before = start;
    let waited = await runQueueWaits(pid);
    let ownMs = 0;
    while (!this.signal.aborted) {
      await delay(intervalMs, undefined, { signal: this.signal, ref: false }).catch(() => undefined);
      const now = performance.now();
      const seen = await runQueueWaits(pid);
      ownMs = Math.max(0, ownMs + ownTime({ elapsedMs: now - before, before: waited, after: seen }));
      [before, waited] = [now, seen];
      if (ownMs < timeoutMs && now - start < maxTimes * timeoutMs) continue;
      this.#passed.abort(new Error(`${((now - start) / 1000).toFixed(1)} s have passed`));
    }
  }
}

/**
 * The part of an interval that the process had for itself; the thread with the longest wait decides. If this process
 * was held up itself, the other counts as having run for two planned intervals at most. The result is negative if a
 * wait has ended that began before the interval: the kernel counts a wait only at its end, so the time counted
 * meanwhile is taken back.
 */
export function ownTime(options: {
  elapsedMs: number;
  before: ReadonlyMap<string, number>;
  after: ReadonlyMap<string, number>;
}): number {
  const { elapsedMs, before, after } = options;
  const waits = [...after].map(([thread, waitMs]) => waitMs - (before.get(thread) ?? waitMs));
  return Math.min(elapsedMs, 2 * intervalMs) - Math.max(0, ...waits);
}

/** Each thread's time of waiting for a CPU since it began. */
async function runQueueWaits(pid: number): Promise<Map<string, number>> {
  const threads = await readdir(`/proc/${pid}/task`).catch(() => [] as string[]);
  const waits = new Map<string, number>();
  for (const thread of threads) {
    const text = await readFile(`/proc/${pid}/task/${thread}/schedstat`, "latin1").catch(() => "");
    waits.set(thread, Number(text.split(" ")[1] ?? 0) / 1e6);
  }
  return waits;
}
