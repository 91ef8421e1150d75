// Compromised guests, played by a thread of their own. A flooding guest would otherwise keep the test's thread from
// reading the answers of the driver or of a supervisor. A real guest can't do that to a host.
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import type { Order, Report } from "./hostile-guests-thread.ts";

interface PlayedGuest extends AsyncDisposable {
  /** The number of connections that it got. */
  readonly connections: number;
}

export class HostileGuests implements AsyncDisposable {
  readonly #worker = new Worker(new URL("hostile-guests-thread.ts", import.meta.url));
  readonly #connections = new Map<string, number>();
  readonly #done = new Map<string, () => void>();
  /** Rejects once the thread has ended, with its error if it had one. */
  readonly #ended = once(this.#worker, "exit").then(() => {
    throw new Error("the hostile guests' thread has ended");
  });

  constructor() {
    // A pending order rejects; without one, the rejection is not an error.
    this.#ended.catch(() => undefined);
    this.#worker.on("message", ({ socketPath, connections }: Report) => {
      if (connections === undefined) this.#done.get(socketPath)?.();
      else this.#connections.set(socketPath, connections);
    });
  }

  /** Rejects if the thread has ended. */
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
