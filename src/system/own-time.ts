// A deadline for what another process is to do, in that process's own time: time in which its threads wait for a CPU that others
// have is not counted. A busy host makes everything slow and is no sign of a process that hangs, while one that sleeps or
// spins uses up its time. Source: /proc/PID/task/TID/schedstat (the kernel's Documentation/scheduler/sched-stats.rst); a kernel
// without it, which no distribution ships, leaves the clock on the wall.
import { readdir, readFile } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";

const intervalMs = 200;
/** Of the clock on the wall: however busy a host is, nobody is waited for without end. */
const mostTimes = 20;

export interface OwnTimeOptions {
  readonly pid: number;
  readonly timeoutMs: number;
}

/** Aborts once the process has had `timeoutMs`. A process that is gone no longer waits for a CPU. */
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
      const reason = `${timeoutMs / 1000} s of its own time are over`;
      if (ownMs >= timeoutMs || now - start >= mostTimes * timeoutMs) this.#passed.abort(new Error(reason));
    }
  }
}

/**
 * What of an interval the process had for itself. The thread that waited longest decides. When this process itself was held up,
 * nobody knows more than that the other could have run for as long as was planned. Negative where a wait has ended that began
 * before the interval: the kernel tells of a wait when it is over, so that what was counted meanwhile is taken back.
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

/** How long each thread has waited for a CPU since it began. */
async function runQueueWaits(pid: number): Promise<Map<string, number>> {
  const threads = await readdir(`/proc/${pid}/task`).catch(() => [] as string[]);
  const waits = new Map<string, number>();
  for (const thread of threads) {
    const text = await readFile(`/proc/${pid}/task/${thread}/schedstat`, "latin1").catch(() => "");
    waits.set(thread, Number(text.split(" ")[1] ?? 0) / 1e6);
  }
  return waits;
}
