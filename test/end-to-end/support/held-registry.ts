// A registry whose answers a test holds back, so that a pull takes as long as the test needs.
import { createServer, request, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { waitFor } from "./wait.ts";

export class HeldRegistry implements AsyncDisposable {
  /** host:port of the registry that answers in the end. */
  target = "";
  readonly #server: Server;
  readonly #waiting: (() => void)[] = [];

  private constructor(server: Server) {
    this.#server = server;
  }

  static async start(): Promise<HeldRegistry> {
    const server = createServer();
    const registry = new HeldRegistry(server);
    server.on("request", (incoming, outgoing) => {
      registry.#waiting.push(() => {
        const { url = "/", headers, method = "GET" } = incoming;
        const asked = request(`http://${registry.target}${url}`, { method, headers }, (answer) => {
          outgoing.writeHead(answer.statusCode ?? 500, answer.headers);
          answer.pipe(outgoing);
        });
        asked.on("error", () => outgoing.destroy());
        asked.end();
      });
      if (registry.#open) registry.release();
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return registry;
  }

  #open = false;

  get address(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async waitForRequest(): Promise<void> {
    await waitFor({
      what: "a request to the held registry",
      timeoutMs: 60_000,
      attempt: async () => this.#waiting.length > 0 || undefined,
    });
  }

  /** Answers the waiting requests and all later ones. */
  release(): void {
    this.#open = true;
    for (const answer of this.#waiting.splice(0)) answer();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }
}
