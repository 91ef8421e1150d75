// An HTTP server on loopback with a test's answers, which records its requests. It plays a registry, a mirror, a token
// server or a blob store. To a client these are different hosts, since each has its own port.
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface SeenRequest {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  /** Empty if the request had none. */
  readonly authorization: string;
  readonly accept: string;
}

export interface Answer {
  /** Default: 200. */
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string | readonly string[]>>;
  readonly body?: string | Uint8Array;
  /** Closes the connection after the body, although the headers promised more. */
  readonly breakOff?: boolean;
}

/** Undefined is a 404. */
export type Answers = (request: SeenRequest) => Answer | undefined;

export class LoopbackServer implements AsyncDisposable {
  readonly #server = createServer((request, response) => this.#answer(request, response));
  readonly #answers: Answers;
  /** In the order of their arrival. */
  readonly requests: SeenRequest[] = [];

  private constructor(answers: Answers) {
    this.#answers = answers;
  }

  static async start(answers: Answers): Promise<LoopbackServer> {
    const server = new LoopbackServer(answers);
    await new Promise<void>((resolve) => server.#server.listen(0, "127.0.0.1", resolve));
    return server;
  }

  /** host:port */
  get address(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  get url(): string {
    return `http://${this.address}`;
  }

  /** The Authorization headers of the requests whose path ends with `pathEnd`. */
  authorizations(pathEnd = ""): string[] {
    return this.requests.filter(({ path }) => path.endsWith(pathEnd)).map(({ authorization }) => authorization);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const { pathname, searchParams } = new URL(request.url ?? "", this.url);
    const { authorization = "", accept = "" } = request.headers;
    const seen: SeenRequest = {
      method: request.method ?? "",
      path: pathname,
      query: searchParams,
      authorization,
      accept,
    };
    this.requests.push(seen);
    const { status, headers, body = "", breakOff = false } = this.#answers(seen) ?? { status: 404 };
    const bytes = Buffer.from(body);
    for (const [name, value] of Object.entries(headers ?? {})) response.setHeader(name, value);
    response.writeHead(status ?? 200, { "content-length": bytes.length + (breakOff ? 1 : 0) });
    if (breakOff) response.write(bytes, () => response.destroy());
    else response.end(bytes);
  }
}
