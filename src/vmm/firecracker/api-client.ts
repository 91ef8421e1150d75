// Firecracker's API: HTTP/1.1 over a unix socket, always with Content-Length (chunked bodies are parsed and ignored by its
// server). The types are generated from its description (openapi/firecracker.yaml). One thread of Firecracker answers,
// one request after another; several connections (it allows ten) spare the waiting between an answer and the next
// request. Any refusal during configuration is final for that process: nothing there is undone.
import { Agent, request } from "node:http";
import type { Operations } from "../../gen/firecracker/api.ts";
import { FirecrackerApiError } from "../errors.ts";

export type Operation = keyof Operations;

/** One call. Placeholders of the path ("{drive_id}") are the body's fields of the same name. */
export type ApiRequest<K extends Operation = Operation> = {
  [O in K]: { readonly operation: O; readonly body: Operations[O]["body"] };
}[K];

export interface ApiClientOptions {
  readonly socketPath: string;
  /** For all answers together, by the wall clock. */
  readonly timeoutMs: number;
}

interface Answer {
  readonly status: number;
  readonly body: string;
}

/** Answers are a few hundred bytes; the VMM is not trusted with more. */
const maxAnswerBytes = 1 << 20;
/** Firecracker refuses an eleventh; some are left for an operator who looks at a VM. */
const maxConnections = 6;

export class FirecrackerApi implements Disposable {
  readonly #options: ApiClientOptions;
  readonly #deadline: AbortSignal;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: maxConnections });

  constructor(options: ApiClientOptions) {
    this.#options = options;
    this.#deadline = AbortSignal.timeout(options.timeoutMs);
  }

  /**
   * Fails with FirecrackerApiError, which names the call, when Firecracker refuses it or does not answer. An answer with content
   * is one to a GET; the driver sends none, so nothing of what a VMM says steers it. api-contract.test.ts holds such answers
   * against the description.
   */
  async send<K extends Operation>(
    { operation, body }: ApiRequest<K>,
    options: { signal: AbortSignal },
  ): Promise<Operations[K]["answer"]> {
    const [method = "", template = ""] = operation.split(" ");
    const path = template.replace(/\{(\w+)\}/g, (_, name: string) => fieldOf(body, name));
    const call = `${method} ${path}`;
    let answer: Answer;
    try {
      answer = await this.#exchange(method, path, body, options.signal);
    } catch (error) {
      options.signal.throwIfAborted();
      const within = `within ${this.#options.timeoutMs / 1000} s`;
      const why = this.#deadline.aborted ? within : `(${(error as Error).message})`;
      throw new FirecrackerApiError({ call, faultMessage: `no answer ${why}`, cause: error });
    }
    if (answer.status >= 300) throw new FirecrackerApiError({ call, faultMessage: faultMessage(answer) });
    if (answer.body === "") return undefined;
    return parseAnswer(call, answer.body) as Operations[K]["answer"];
  }

  /**
   * Sends the lanes side by side, and each lane's requests in order. The first refusal is the error; later requests
   * then stay unsent.
   */
  async sendLanes(lanes: readonly (readonly ApiRequest[])[], options: { signal: AbortSignal }): Promise<void> {
    const stop = new AbortController();
    const signal = AbortSignal.any([options.signal, stop.signal]);
    const sendLane = async (lane: readonly ApiRequest[]): Promise<void> => {
      for (const next of lane) await this.send(next, { signal });
    };
    try {
      await Promise.all(lanes.map(sendLane));
    } catch (error) {
      stop.abort(error);
      throw error;
    }
  }

  [Symbol.dispose](): void {
    this.#agent.destroy();
  }

  #exchange(method: string, path: string, body: unknown, signal: AbortSignal): Promise<Answer> {
    const content = body === undefined ? undefined : Buffer.from(JSON.stringify(body));
    return new Promise((resolve, reject) => {
      const outgoing = request(
        {
          socketPath: this.#options.socketPath,
          agent: this.#agent,
          method,
          path,
          headers:
            content === undefined ? {} : { "Content-Type": "application/json", "Content-Length": content.length },
          signal: AbortSignal.any([signal, this.#deadline]),
        },
        (incoming) => {
          const chunks: Buffer[] = [];
          let received = 0;
          incoming.on("data", (chunk: Buffer) => {
            received += chunk.length;
            if (received > maxAnswerBytes) incoming.destroy(new Error("the answer is too long"));
            chunks.push(chunk);
          });
          incoming.on("end", () =>
            resolve({ status: incoming.statusCode ?? 0, body: Buffer.concat(chunks).toString() }),
          );
          incoming.on("error", reject);
        },
      );
      outgoing.on("error", reject);
      outgoing.end(content);
    });
  }
}

function fieldOf(body: unknown, name: string): string {
  const fields: Record<string, unknown> = { ...(body as object | undefined) };
  return encodeURIComponent(String(fields[name]));
}

function parseAnswer(call: string, body: string): unknown {
  try {
    return JSON.parse(body);
  } catch (error) {
    throw new FirecrackerApiError({
      call,
      faultMessage: `its answer is not JSON: ${body.slice(0, 200)}`,
      cause: error,
    });
  }
}

/** `{"fault_message": ...}` from Firecracker's handlers, `{"error": ...}` from its HTTP server. */
function faultMessage(answer: Answer): string {
  try {
    const parsed: unknown = JSON.parse(answer.body);
    if (typeof parsed === "object" && parsed !== null) {
      if ("fault_message" in parsed) return String(parsed.fault_message);
      if ("error" in parsed) return String(parsed.error);
    }
  } catch {
    // Not JSON: shown as it is.
  }
  return `status ${answer.status} ${answer.body.slice(0, 200)}`.trim();
}
