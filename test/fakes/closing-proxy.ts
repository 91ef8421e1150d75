// Stands between an honest guest and its host, and breaks each connection after a given number of the guest's bytes.
import { rm } from "node:fs/promises";
import { connect, createServer, type Socket } from "node:net";

export interface ClosingProxyOptions {
  readonly socketPath: string;
  readonly guestPath: string;
  /** The number of the guest's bytes that a connection (counted from 0) passes on. */
  readonly bytesOf: (connection: number) => number;
}

export class ClosingProxy implements AsyncDisposable {
  readonly #options: ClosingProxyOptions;
  readonly #sockets = new Set<Socket>();
  readonly #server = createServer((host) => this.#accept(host));
  connections = 0;

  private constructor(options: ClosingProxyOptions) {
    this.#options = options;
  }

  static async start(options: ClosingProxyOptions): Promise<ClosingProxy> {
    const proxy = new ClosingProxy(options);
    await new Promise<void>((resolve) => proxy.#server.listen(options.socketPath, resolve));
    return proxy;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
    await rm(this.#options.socketPath, { force: true });
  }

  #accept(host: Socket): void {
    let left = this.#options.bytesOf(this.connections++);
    const guest = connect(this.#options.guestPath);
    const end = (): void => {
      host.destroy();
      guest.destroy();
    };
    for (const socket of [host, guest]) {
      this.#sockets.add(socket);
      socket.on("error", end);
      socket.once("close", () => {
        this.#sockets.delete(socket);
        // The bytes already passed on arrive first.
        host.destroySoon();
        guest.destroy();
      });
    }
    host.pipe(guest);
    guest.on("data", (chunk: Buffer) => {
      host.write(chunk.subarray(0, left));
      left -= chunk.length;
      if (left <= 0) host.destroySoon();
    });
  }
}
