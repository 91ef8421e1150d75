// Runs a program to its end within a deadline; the caller judges the exit code.
import { spawn } from "node:child_process";
import { text } from "node:stream/consumers";

export interface CommandResult {
  readonly exitCode: number | undefined;
  readonly signal: string | undefined;
  readonly stdout: string;
  readonly stderr: string;
  readonly elapsedMs: number;
}

export interface CommandOptions {
  readonly file: string;
  readonly args: readonly string[];
  readonly stdin?: string | undefined;
  readonly env?: Readonly<Record<string, string>> | undefined;
  readonly timeoutMs?: number | undefined;
}

export async function run(options: CommandOptions): Promise<CommandResult> {
  const started = performance.now();
  const timeoutMs = options.timeoutMs ?? 60_000;
  const child = spawn(options.file, options.args, {
    stdio: ["pipe", "pipe", "pipe"],
    env: { ...process.env, ...options.env },
    signal: AbortSignal.timeout(timeoutMs),
    killSignal: "SIGKILL",
  });
  const failed = new Promise<never>((_, reject) => {
    child.once("error", (error) => {
      const why = error.name === "AbortError" ? `did not end within ${timeoutMs / 1000} s` : error.message;
      reject(new Error(`${options.file} ${options.args.join(" ")}: ${why}`));
    });
  });
  // A program may end without having read all of its input.
  child.stdin.on("error", () => {});
  child.stdin.end(options.stdin ?? "");
  const closed = new Promise<[number | null, string | null]>((resolve) => {
    child.once("close", (code, signal) => resolve([code, signal]));
  });
  const [stdout, stderr, [code, signal]] = await Promise.race([
    Promise.all([text(child.stdout), text(child.stderr), closed]),
    failed,
  ]);
  return {
    exitCode: code ?? undefined,
    signal: signal ?? undefined,
    stdout,
    stderr,
    elapsedMs: performance.now() - started,
  };
}

/** Gives standard output; fails on any exit code but 0. */
export async function runSuccessfully(options: CommandOptions): Promise<string> {
  const { exitCode, signal, stdout, stderr } = await run(options);
  if (exitCode === 0) return stdout;
  throw new Error(
    `${options.file} ${options.args.join(" ")}: ${signal ?? `exit code ${exitCode}`}: ${stderr}${stdout}`,
  );
}
