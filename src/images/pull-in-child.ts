// The parent's side of a pull worker: starts it, passes its progress on, and ends its whole process group if need be.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import * as v from "valibot";
import { PullAbortedError, PullTimedOutError, PullWorkerFailedError, ReportedImageError } from "./errors.ts";
import { type PullLine, type PullRequest, pullLineSchema } from "./pull-worker.ts";
import type { ResolvedImage } from "./store/image-store.ts";

const maxStderrChars = 4096;

/** Fails with ReportedImageError, which has the worker's code and message, or with an error of the worker itself. */
export async function pullInChild(options: {
  /** The program that runs the worker, with its arguments. */
  readonly command: readonly [string, ...string[]];
  readonly request: PullRequest;
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
  readonly onProgress?: ((message: string) => void) | undefined;
}): Promise<ResolvedImage> {
  const { reference } = options.request;
  const [file, ...args] = options.command;
  const child = spawn(file, args, { detached: true, stdio: ["pipe", "pipe", "pipe"] });
  const timeout = AbortSignal.timeout(options.timeoutMs);
  const signal = AbortSignal.any([options.signal, timeout]);
  // The group: mksquashfs is the worker's child.
  const kill = (): void => killGroup(child);
  signal.addEventListener("abort", kill);
  if (signal.aborted) kill();
  let stderr = "";
  child.stderr.on("data", (chunk: Buffer) => {
    stderr = (stderr + chunk.toString("utf8")).slice(-maxStderrChars);
  });
  child.stdin.on("error", () => {});
  child.stdin.end(JSON.stringify(options.request));
  try {
    const ended = once(child, "close") as Promise<[number | null, NodeJS.Signals | null]>;
    let answer: PullLine | undefined;
    const failedToStart = ended.catch((cause: unknown) => {
      throw new PullWorkerFailedError({ reference, problem: `can't be started: ${(cause as Error).message}`, cause });
    });
    for await (const text of createInterface({ input: child.stdout })) {
      const line = v.parse(pullLineSchema, JSON.parse(text));
      if (line.kind === "progress") options.onProgress?.(line.message);
      else answer = line;
    }
    const [code, endSignal] = await failedToStart;
    if (timeout.aborted) throw new PullTimedOutError({ reference, timeoutMs: options.timeoutMs });
    if (options.signal.aborted) throw new PullAbortedError({ reference });
    if (answer?.kind === "result") return answer.image;
    if (answer?.kind === "error") throw new ReportedImageError(answer);
    const how = `ended (${endSignal ?? `exit status ${code}`}) without an answer ${stderr}`;
    throw new PullWorkerFailedError({ reference, problem: how.trim() });
  } finally {
    signal.removeEventListener("abort", kill);
    if (child.exitCode === null && child.signalCode === null) kill();
  }
}

function killGroup(child: ChildProcess): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, "SIGKILL");
  } catch {
    // It has ended.
  }
}
