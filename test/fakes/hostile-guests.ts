// Guests that have been taken over, played by a thread of their own: those that flood would keep the test's thread, which has the
// driver's or a supervisor's answers to read, from its work. That is no part of what a guest can do to a host.
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import type { Order, Report } from "./hostile-guests-thread.ts";

interface PlayedGuest extends AsyncDisposable {
  /** How often it has been connected to. */
  readonly connections: number;
}

export class HostileGuests implements AsyncDisposable {
  readonly #worker = new Worker(new URL("hostile-guests-thread.ts", import.meta.url));
  readonly #connections = new Map<string, number>();
  readonly #done = new Map<string, () => void>();
  /** Rejects once the thread is over, with its error where it had one. */
  readonly #ended = once(this.#worker, "exit").then(() => {
    throw new Error("the hostile guests' thread has ended");
  });

  constructor() {
    // Who waits for an order is told; nobody else needs to be.
    this.#ended.catch(() => undefined);
    this.#worker.on("message", ({ socketPath, connections }: Report) => {
      if (connections === undefined) this.#done.get(socketPath)?.();
      else this.#connections.set(socketPath, connections);
    });
  }

  /** Rejects where the thread has died. */
  async #order(order: Order): Promise<void> {
    const done = new Promise<void>((resolve) => this.#done.set(order.socketPath, resolve));
    this.#worker.postMessage(order);
    await Promise.race([done, this.#ended]).finally(() => this.#done.delete(order.socketPath));
  }

  /** Resolves once the guest's socket listens. */
  async play(options: Required<Order>): Promise<PlayedGuest> {
    await this.#order(options);
    const { socketPath } = options;
    const connections = this.#connections;
    return {
      get connections() {
        return connections.get(socketPath) ?? 0;
      },
      [Symbol.asyncDispose]: () => this.#order({ socketPath }),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker.terminate();
  }
}
