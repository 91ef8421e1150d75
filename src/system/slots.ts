// So many at a time: heavy work that would only slow itself down, and run into its own deadlines, if all of it went on at once.
import { raceAbort } from "./race-abort.ts";

export class Slots {
  #free: number;
  /** First come, first served. */
  readonly #waiting = new Set<() => void>();

  constructor(count: number) {
    this.#free = count;
  }

  /** Whether `take` would resolve at once. */
  get hasFree(): boolean {
    return this.#free > 0;
  }

  /** Resolves when a slot is free; disposing frees it again. Rejects with the signal's reason. */
  async take(signal: AbortSignal): Promise<Disposable> {
    signal.throwIfAborted();
    if (this.#free > 0) this.#free -= 1;
    else await this.#wait(signal);
    return { [Symbol.dispose]: () => this.#giveBack() };
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
