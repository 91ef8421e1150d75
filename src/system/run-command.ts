// Runs one short-lived host program to its end: argv arrays only (no shell), bounded output, always a deadline, and one error that
// names the command, its end and its last words.
import { type ChildProcess, spawn } from "node:child_process";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { reasonOf } from "./error.ts";
import { CommandError, type CommandFailure } from "./errors.ts";

export interface RunCommandOptions {
  readonly file: string;
  readonly args: readonly string[];
  /** Written to stdin, which is then closed; without it stdin is /dev/null. */
  readonly input?: string | Uint8Array | AsyncIterable<Uint8Array> | undefined;
  /** The whole environment of the child; default: the caller's. */
  readonly env?: Readonly<Record<string, string>> | undefined;
  /** By the wall clock, and so long that only a hanging program meets it, however busy the host is. */
  readonly timeoutMs?: number | undefined;
  /** The last bytes that are kept of stdout and of stderr, each; default 1 MiB. */
  readonly maxOutputBytes?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface CommandOutput {
  readonly stdout: string;
  readonly stderr: string;
}

/** Milliseconds on an idle host: a program that takes this long hangs. */
const defaultTimeoutMs = 5 * 60_000;
/** Between SIGTERM and SIGKILL, and between the child's exit and giving up on pipes that a grandchild holds open. */
const graceMs = 2_000;

/** The output of a command that ends with status 0. Fails with CommandError; an aborted signal's reason is its cause. */
export async function runCommand(options: RunCommandOptions): Promise<CommandOutput> {
  const { file, args, signal, timeoutMs = defaultTimeoutMs } = options;
  const command = [file, ...args];
  const aborted = (): CommandFailure => {
    const cause: unknown = signal?.reason;
    return { code: "command_aborted", end: `was stopped by its caller: ${reasonOf(cause)}`, cause };
  };
  if (signal?.aborted) throw new CommandError(command, aborted());
  const stdin = options.input === undefined ? "ignore" : "pipe";
  const child = spawn(file, args, { stdio: [stdin, "pipe", "pipe"], env: options.env && { ...options.env } });
  const stdout = new Tail(options.maxOutputBytes);
  const stderr = new Tail(options.maxOutputBytes);
  child.stdout?.on("data", (chunk: Buffer) => stdout.push(chunk));
  child.stderr?.on("data", (chunk: Buffer) => stderr.push(chunk));

  let stopped: CommandFailure | undefined;
  let killTimer: NodeJS.Timeout | undefined;
  const stop = (failure: CommandFailure): void => {
    stopped ??= failure;
    child.kill("SIGTERM");
    killTimer ??= setTimeout(() => child.kill("SIGKILL"), graceMs);
  };
  const late = `did not end within ${timeoutMs / 1000} s and was stopped`;
  const deadline = setTimeout(() => stop({ code: "command_timed_out", end: late }), timeoutMs);
  const onAbort = (): void => stop(aborted());
  signal?.addEventListener("abort", onAbort, { once: true });
  const feeding = new AbortController();
  const fed = feed(child, options.input, feeding.signal).catch((cause: Error) => {
    if (feeding.signal.aborted || isClosedPipe(cause)) return;
    // At once: the child must not take half its input for the whole.
    child.kill("SIGKILL");
    stop({ code: "command_failed", end: `was stopped because its input failed: ${cause.message}`, cause });
  });
  try {
    const failure = await ended(child);
    feeding.abort();
    await fed;
    const output = { stdout: stdout.text(), stderr: stderr.text() };
    const why = stopped ?? failure;
    if (why === undefined) return output;
    throw new CommandError(command, why, output.stderr || output.stdout);
  } finally {
    clearTimeout(deadline);
    clearTimeout(killTimer);
    signal?.removeEventListener("abort", onAbort);
  }
}

/** Resolves at the child's end: with nothing for status 0. */
function ended(child: ChildProcess): Promise<CommandFailure | undefined> {
  const { promise, resolve } = Promise.withResolvers<CommandFailure | undefined>();
  let pipeTimer: NodeJS.Timeout | undefined;
  child.once("error", (cause: NodeJS.ErrnoException) => {
    // Also emitted when a kill fails; only a child without a pid never started.
    if (child.pid !== undefined) return;
    const why = cause.code === "ENOENT" ? "no such program; install it or set its path" : cause.message;
    resolve({ code: "command_not_started", end: `could not be started: ${why}`, cause });
  });
  child.once("exit", () => {
    pipeTimer = setTimeout(() => {
      child.stdout?.destroy();
      child.stderr?.destroy();
    }, graceMs);
  });
  child.once("close", (status, signal) => {
    clearTimeout(pipeTimer);
    const end = signal === null ? `failed with status ${status}` : `was ended by ${signal}`;
    resolve(status === 0 ? undefined : { code: "command_failed", end });
  });
  return promise;
}

async function feed(child: ChildProcess, input: RunCommandOptions["input"], signal: AbortSignal): Promise<void> {
  if (input === undefined || child.stdin === null) return;
  const source = typeof input === "string" || input instanceof Uint8Array ? [Buffer.from(input)] : input;
  await pipeline(Readable.from(source, { objectMode: false }), child.stdin, { signal });
}

/** The child closed its stdin early. Its exit status, not the pipe, decides if that matters. */
function isClosedPipe(cause: NodeJS.ErrnoException): boolean {
  return ["EPIPE", "ECONNRESET", "ERR_STREAM_PREMATURE_CLOSE"].includes(cause.code ?? "");
}

/** The last bytes of an output. */
class Tail {
  readonly #maxBytes: number;
  #chunks: Buffer[] = [];
  #sizeBytes = 0;

  constructor(maxBytes = 1 << 20) {
    this.#maxBytes = maxBytes;
  }

  push(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#sizeBytes += chunk.length;
    if (this.#sizeBytes <= 2 * this.#maxBytes) return;
    this.#chunks = [this.#bytes()];
    this.#sizeBytes = this.#maxBytes;
  }

  text(): string {
    return this.#bytes().toString("utf8");
  }

  #bytes(): Buffer {
    return Buffer.from(Buffer.concat(this.#chunks).subarray(-this.#maxBytes));
  }
}
