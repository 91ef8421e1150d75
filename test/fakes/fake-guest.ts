// A guest without a VM: the guest's API served behind a unix socket that speaks Firecracker's `CONNECT port`.
import { rm } from "node:fs/promises";
import * as http2 from "node:http2";
import { createServer, type Socket } from "node:net";
import type { ServiceImpl } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { Guest } from "../../src/gen/litegix/guest/v1/guest_pb.js";

export interface FakeGuestOptions {
  readonly socketPath: string;
  /** Its answers. If a greeting is not among them, it greets plainly. */
  readonly service: Partial<ServiceImpl<typeof Guest>>;
  /** Its answer to the CONNECT line. Undefined: no answer, the connection stays silent. */
  readonly answer?: (line: string) => string | undefined;
  /** Gets the connections to the port of bulk streams. */
  readonly bulk?: (socket: Socket) => void;
}

const bulkLine = "CONNECT 11";

export class FakeGuest implements AsyncDisposable {
  readonly #server = createServer((socket) => this.#accept(socket));
  readonly #http = http2.createServer();
  readonly #options: FakeGuestOptions;
  readonly #sockets = new Set<Socket>();

  private constructor(options: FakeGuestOptions) {
    this.#options = options;
    this.#http.on(
      "request",
      connectNodeAdapter({
        routes: (router) => router.service(Guest, { hello: () => ({ generation: 1 }), ...options.service }),
        acceptCompression: [],
      }),
    );
  }

  static async start(options: FakeGuestOptions): Promise<FakeGuest> {
    const guest = new FakeGuest(options);
    await new Promise<void>((resolve) => guest.#server.listen(options.socketPath, resolve));
    return guest;
  }

  get connectionCount(): number {
    return this.#sockets.size;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
    await rm(this.#options.socketPath, { force: true });
  }

  #accept(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on("error", () => {});
    socket.once("close", () => this.#sockets.delete(socket));
    socket.once("data", (chunk: Buffer) => {
      const end = chunk.indexOf(10) + 1;
      const line = chunk.toString("latin1", 0, end - 1);
      const answer = this.#options.answer === undefined ? "OK 1073741824\n" : this.#options.answer(line);
      if (answer === undefined) return;
      socket.write(answer);
      if (!answer.startsWith("OK ")) return;
      if (end < chunk.length) socket.unshift(chunk.subarray(end));
      if (line === bulkLine && this.#options.bulk !== undefined) this.#options.bulk(socket);
      else this.#http.emit("connection", socket);
    });
  }
}
