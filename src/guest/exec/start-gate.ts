// How many exec sessions of one guest may be starting at the same time. Fifty at once would all be answered late, and the first
// answer as late as the last: then nothing tells a busy guest from one that hangs.

const mostStarting = 8;

export class StartGate {
  readonly #waiting: (() => void)[] = [];
  #free = mostStarting;

  /** Resolves when it is the caller's turn, with what gives the place back (once, however often it is called). */
  async enter(signal: AbortSignal): Promise<() => void> {
    signal.throwIfAborted();
    if (this.#free > 0) this.#free -= 1;
    else await this.#turn(signal);
    let left = false;
    return () => {
      if (left) return;
      left = true;
      this.#leave();
    };
  }

  #turn(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const mine = (): void => {
        signal.removeEventListener("abort", onAbort);
        resolve();
      };
      const onAbort = (): void => {
        this.#waiting.splice(this.#waiting.indexOf(mine), 1);
        reject(signal.reason as Error);
      };
      signal.addEventListener("abort", onAbort, { once: true });
      this.#waiting.push(mine);
    });
  }

  #leave(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free += 1;
    else next();
  }
}
