// Values pushed from anywhere, pulled by any number of readers in turn; bounded, since a reader may be gone for long.

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
