// A session of Nomad's exec endpoint, message by message (nomad/api/allocations_exec.go): JSON in websocket text
// frames, data in base64. It shows exactly what the CLI hides: bytes, the moment of a resize, the close of standard
// input, a reader that stops.
import WebSocket from "ws";
import type { Allocation } from "./allocation.ts";
import { waitFor } from "./wait.ts";

export interface ExecSessionOptions {
  readonly allocation: Allocation;
  readonly argv: readonly string[];
  readonly terminal?: boolean;
}

interface Message {
  readonly stdout?: { readonly data?: string; readonly close?: boolean } | null;
  readonly stderr?: { readonly data?: string; readonly close?: boolean } | null;
  readonly exited?: boolean;
  readonly result?: { readonly exit_code?: number } | null;
}

export interface ExecEnd {
  readonly stdout: string;
  readonly stderr: string;
  /** Undefined: the session ended without one. */
  readonly exitCode: number | undefined;
  /** The reason in the websocket's close frame. */
  readonly reason: string;
}

/** Unsent bytes above which `write` waits. */
const highWaterBytes = 1 << 20;

export class ExecSession implements AsyncDisposable {
  readonly #socket: WebSocket;
  readonly #ended: Promise<void>;
  #over = false;
  #reason = "";
  #exitCode: number | undefined;
  readonly #output = { stdout: [] as Buffer[], stderr: [] as Buffer[] };
  /** Receives output, which is then not kept. */
  onOutput: ((stream: "stdout" | "stderr", data: Buffer) => void) | undefined;
  bytesSeen = 0;

  private constructor(options: ExecSessionOptions) {
    const query = new URLSearchParams({
      task: options.allocation.taskName,
      tty: String(options.terminal ?? false),
      command: JSON.stringify(options.argv),
    });
    const address = options.allocation.agent.address.replace(/^http/, "ws");
    this.#socket = new WebSocket(`${address}/v1/client/allocation/${options.allocation.id}/exec?${query.toString()}`, {
      perMessageDeflate: false,
    });
    this.#socket.on("message", (data) => this.#receive(JSON.parse((data as Buffer).toString("utf8")) as Message));
    this.#socket.on("error", (error) => {
      this.#reason ||= error.message;
    });
    this.#ended = new Promise((resolve) => {
      this.#socket.once("close", (_code, reason) => {
        this.#reason ||= reason.toString("utf8");
        this.#over = true;
        resolve();
      });
    });
  }

  /** Resolves when Nomad has accepted the connection. The program may not run yet. */
  static async open(options: ExecSessionOptions): Promise<ExecSession> {
    const session = new ExecSession(options);
    await Promise.race([
      new Promise((resolve) => session.#socket.once("open", resolve)),
      session.#ended.then(() => {
        throw new Error(`no exec session: ${session.#reason}`);
      }),
    ]);
    return session;
  }

  #receive(message: Message): void {
    for (const stream of ["stdout", "stderr"] as const) {
      const data = Buffer.from(message[stream]?.data ?? "", "base64");
      if (data.length === 0) continue;
      this.bytesSeen += data.length;
      if (this.onOutput === undefined) this.#output[stream].push(data);
      else this.onOutput(stream, data);
    }
    if (message.exited === true) this.#exitCode = message.result?.exit_code ?? 0;
  }

  get stdout(): string {
    return Buffer.concat(this.#output.stdout).toString("utf8");
  }

  get isOver(): boolean {
    return this.#over;
  }

  #send(message: object): void {
    this.#socket.send(JSON.stringify(message));
  }

  /** Resolves once most of it has been sent. */
  async write(data: string | Uint8Array): Promise<void> {
    this.#send({ stdin: { data: Buffer.from(data).toString("base64") } });
    while (this.#socket.bufferedAmount > highWaterBytes && !this.#over) {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }

  closeStdin(): void {
    this.#send({ stdin: { close: true } });
  }

  resize(size: { rows: number; columns: number }): void {
    this.#send({ tty_size: { height: size.rows, width: size.columns } });
  }

  heartbeat(): void {
    this.#send({});
  }

  /** Stops reading from the agent until `resume`. */
  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  /** Drops the connection without a close frame, as a client whose machine loses power. */
  vanish(): void {
    this.#socket.terminate();
  }

  async waitForStdout(pattern: RegExp, timeoutMs = 15_000): Promise<RegExpExecArray> {
    return await waitFor({
      what: `${pattern} from the session`,
      timeoutMs,
      intervalMs: 10,
      attempt: () => {
        const match = pattern.exec(this.stdout);
        if (match === null && this.#over) throw new Error(`the session ended: ${JSON.stringify(this.#describe())}`);
        return match ?? undefined;
      },
      seen: () => JSON.stringify(this.#describe()),
    });
  }

  #describe(): ExecEnd {
    const stderr = Buffer.concat(this.#output.stderr).toString("utf8");
    return { stdout: this.stdout, stderr, exitCode: this.#exitCode, reason: this.#reason };
  }

  async end(timeoutMs = 30_000): Promise<ExecEnd> {
    const timer = setTimeout(() => {
      this.#reason ||= `no end within ${timeoutMs / 1000} s`;
      this.#socket.terminate();
    }, timeoutMs);
    await this.#ended;
    clearTimeout(timer);
    return this.#describe();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.terminate();
    await this.#ended;
  }
}

/** A session from its first to its last byte. */
export async function runExec(options: ExecSessionOptions & { stdin?: string | Uint8Array }): Promise<ExecEnd> {
  await using session = await ExecSession.open(options);
  if (options.stdin !== undefined) await session.write(options.stdin);
  if (options.terminal !== true) session.closeStdin();
  return await session.end();
}
