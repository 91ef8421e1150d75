/**
 * Runs one short-lived host program to its end: argv arrays only (no shell), output kept in bounded tails, always a
 * deadline, and one error that names the command, how it ended and what it said last.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { OwnTimeDeadline } from "./own-time.ts";

export interface RunCommandOptions {
  readonly file: string;
  readonly args: readonly string[];
  /** Written to stdin, which is then closed; without it stdin is /dev/null. */
  readonly input?: string | Uint8Array | AsyncIterable<Uint8Array>;
  /** The whole environment of the child; default: the caller's. */
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Of the program's own time (own-time.ts): a busy host makes it slow, which is no sign that it hangs. */
  readonly timeoutMs: number;
  /** How much of the end of each of stdout and stderr is kept; default 1 MiB. */
  readonly maxOutputBytes?: number;
  readonly signal?: AbortSignal;
}

export interface CommandOutput {
  readonly stdout: string;
  readonly stderr: string;
}

export type CommandErrorCode = "COMMAND_NOT_STARTED" | "COMMAND_FAILED" | "COMMAND_TIMED_OUT" | "COMMAND_ABORTED";

export interface CommandErrorFacts {
  readonly code: CommandErrorCode;
  readonly file: string;
  readonly args: readonly string[];
  readonly exitCode?: number;
  readonly exitSignal?: string;
  readonly timeoutMs?: number;
  readonly stdout?: string;
  readonly stderr?: string;
  readonly cause?: unknown;
}

/** A command that did not end with status 0. The message is one line; `stderr` has the whole kept tail. */
export class CommandError extends Error {
  override readonly name = "CommandError";
  readonly code: CommandErrorCode;
  readonly command: readonly string[];
  readonly exitCode: number | undefined;
  readonly exitSignal: string | undefined;
  readonly stdout: string;
  readonly stderr: string;

  constructor(facts: CommandErrorFacts) {
    super(describeFailure(facts), facts.cause === undefined ? undefined : { cause: facts.cause });
    this.code = facts.code;
    this.command = [facts.file, ...facts.args];
    this.exitCode = facts.exitCode;
    this.exitSignal = facts.exitSignal;
    this.stdout = facts.stdout ?? "";
    this.stderr = facts.stderr ?? "";
  }
}

const DEFAULT_MAX_OUTPUT_BYTES = 1 << 20;
const MESSAGE_TAIL_CHARS = 400;
const MESSAGE_COMMAND_CHARS = 200;
/** Between SIGTERM and SIGKILL, and between the child's exit and giving up on pipes that a grandchild holds open. */
const GRACE_MS = 2_000;

/**
 * @returns the tails of stdout and stderr of a command that ended with status 0
 * @throws CommandError for anything else, an aborted `signal` included (its reason is the cause)
 */
export async function runCommand(options: RunCommandOptions): Promise<CommandOutput> {
  const { file, args, timeoutMs, signal } = options;
  if (signal?.aborted) {
    throw new CommandError({ code: "COMMAND_ABORTED", file, args, cause: signal.reason });
  }
  const maxBytes = options.maxOutputBytes ?? DEFAULT_MAX_OUTPUT_BYTES;
  const child = spawn(file, [...args], {
    stdio: [options.input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
    ...(options.env === undefined ? {} : { env: { ...options.env } }),
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  });
  const stdout = new Tail(maxBytes);
  const stderr = new Tail(maxBytes);
  child.stdout?.on("data", (chunk: Buffer) => stdout.push(chunk));
  child.stderr?.on("data", (chunk: Buffer) => stderr.push(chunk));

  const feeding = new AbortController();
  let stopped: { readonly code: CommandErrorCode; readonly cause?: unknown } | undefined;
  let killTimer: NodeJS.Timeout | undefined;
  const stop = (code: CommandErrorCode, cause?: unknown): void => {
    stopped ??= { code, cause };
    child.kill("SIGTERM");
    killTimer ??= setTimeout(() => child.kill("SIGKILL"), GRACE_MS);
  };
  const onDeadline = (): void => stop("COMMAND_TIMED_OUT");
  using deadline = child.pid === undefined ? undefined : new OwnTimeDeadline({ pid: child.pid, timeoutMs });
  deadline?.signal.addEventListener("abort", onDeadline, { once: true });
  const onAbort = (): void => stop("COMMAND_ABORTED", signal?.reason);
  signal?.addEventListener("abort", onAbort, { once: true });

  // A source that fails leaves the child with half its input: the child must not take that for all of it.
  const fed = feed(child, options.input, feeding.signal).catch((cause: unknown) => {
    if (!feeding.signal.aborted && !isClosedPipe(cause)) {
      stop("COMMAND_FAILED", cause);
      child.kill("SIGKILL");
    }
  });
  try {
    const end = await ended(child);
    feeding.abort();
    await fed;
    const facts = { file, args, stdout: stdout.text(), stderr: stderr.text() };
    if (end.error !== undefined) {
      throw new CommandError({ ...facts, code: "COMMAND_NOT_STARTED", cause: end.error });
    }
    if (stopped !== undefined || end.exitCode !== 0) {
      throw new CommandError({
        ...facts,
        timeoutMs,
        code: stopped?.code ?? "COMMAND_FAILED",
        ...(end.exitCode === null ? {} : { exitCode: end.exitCode }),
        ...(end.exitSignal === null ? {} : { exitSignal: end.exitSignal }),
        cause: stopped?.cause,
      });
    }
    return { stdout: facts.stdout, stderr: facts.stderr };
  } finally {
    deadline?.signal.removeEventListener("abort", onDeadline);
    clearTimeout(killTimer);
    signal?.removeEventListener("abort", onAbort);
  }
}

interface CommandEnd {
  readonly exitCode: number | null;
  readonly exitSignal: string | null;
  readonly error?: Error;
}

function ended(child: ChildProcess): Promise<CommandEnd> {
  return new Promise((resolve) => {
    let pipeTimer: NodeJS.Timeout | undefined;
    child.once("error", (error) => {
      // Also emitted when a kill fails; only a child without a pid never started.
      if (child.pid === undefined) {
        resolve({ exitCode: null, exitSignal: null, error });
      }
    });
    child.once("exit", () => {
      pipeTimer = setTimeout(() => {
        child.stdout?.destroy();
        child.stderr?.destroy();
      }, GRACE_MS);
    });
    child.once("close", (exitCode, exitSignal) => {
      clearTimeout(pipeTimer);
      resolve({ exitCode, exitSignal });
    });
  });
}

async function feed(child: ChildProcess, input: RunCommandOptions["input"], signal: AbortSignal): Promise<void> {
  if (input === undefined || child.stdin === null) {
    return;
  }
  const source = typeof input === "string" || input instanceof Uint8Array ? [Buffer.from(input)] : input;
  await pipeline(Readable.from(source, { objectMode: false }), child.stdin, { signal });
}

/** The child closed its stdin early: its exit status, not the pipe, says whether that matters. */
function isClosedPipe(cause: unknown): boolean {
  const code = cause instanceof Error && "code" in cause ? cause.code : undefined;
  return code === "EPIPE" || code === "ECONNRESET" || code === "ERR_STREAM_PREMATURE_CLOSE";
}

class Tail {
  readonly #maxBytes: number;
  #chunks: Buffer[] = [];
  #sizeBytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  push(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#sizeBytes += chunk.length;
    if (this.#sizeBytes > 2 * this.#maxBytes) {
      this.#chunks = [this.#bytes()];
      this.#sizeBytes = this.#maxBytes;
    }
  }

  text(): string {
    return this.#bytes().toString("utf8");
  }

  #bytes(): Buffer {
    const all = Buffer.concat(this.#chunks);
    return Buffer.from(all.subarray(Math.max(0, all.length - this.#maxBytes)));
  }
}

function describeFailure(facts: CommandErrorFacts): string {
  const command = oneLine([facts.file, ...facts.args].join(" "), MESSAGE_COMMAND_CHARS, "start");
  const said = oneLine(facts.stderr || facts.stdout || "", MESSAGE_TAIL_CHARS, "end");
  return `command "${command}" ${howItEnded(facts)}${said === "" ? "" : `: ${said}`}`;
}

function howItEnded(facts: CommandErrorFacts): string {
  const cause = facts.cause instanceof Error ? `: ${facts.cause.message}` : "";
  switch (facts.code) {
    case "COMMAND_NOT_STARTED":
      return isMissing(facts.cause)
        ? "could not be started: no such program; install it or set its path"
        : `could not be started${cause}`;
    case "COMMAND_TIMED_OUT":
      return `was stopped after its time limit of ${facts.timeoutMs ?? 0} ms`;
    case "COMMAND_ABORTED":
      return `was stopped by its caller${cause}`;
    case "COMMAND_FAILED":
      if (cause !== "") {
        return `was stopped because its input failed${cause}`;
      }
      return facts.exitSignal === undefined
        ? `failed with status ${facts.exitCode ?? "unknown"}`
        : `was ended by ${facts.exitSignal}`;
  }
}

function isMissing(cause: unknown): boolean {
  return cause instanceof Error && "code" in cause && cause.code === "ENOENT";
}

function oneLine(text: string, maxChars: number, keep: "start" | "end"): string {
  const line = text.trim().replace(/\s*[\r\n]+\s*/g, "; ");
  if (line.length <= maxChars) {
    return line;
  }
  return keep === "start" ? `${line.slice(0, maxChars)}...` : `...${line.slice(-maxChars)}`;
}
