// Commands in a task's world: streaming (alloc exec, actions) and collected (script checks, template scripts). A command
// that cannot be started gives an exit code and a message, as with docker: 127 if there is no such program, 126 if it may not run.

import { GuestRefusedError } from "../../guest/errors.ts";
import type { ExecInput } from "../../guest/exec/input.ts";
import { type ExecOutput, type ExecTimes, execInGuest } from "../../guest/exec/session.ts";
import { EmptyCommandError, ExecTimeoutError } from "../errors.ts";
import type { ExecResult } from "../nomad-driver.ts";
import type { Task } from "./task.ts";

/** Like Nomad's own drivers: a check's output beyond it is dropped. */
const maxOutputBytes = 64 * 1024;

/** The exit code and text for a failed start; undefined if the failure is not an answer to the command. */
function startFailure(error: unknown): { exitCode: number; text: string } | undefined {
  if (!(error instanceof GuestRefusedError)) return undefined;
  if (error.reason !== "not_found" && error.reason !== "not_executable") return undefined;
  const exitCode = error.reason === "not_found" ? 127 : 126;
  return { exitCode, text: `exec failed: unable to start container process: ${error.text}` };
}

/** Fails with GuestRefusedError (no task runs, too many sessions) or GuestUnreachableError. */
export async function* execTaskStreaming(options: {
  task: Task;
  command: readonly string[];
  terminal: boolean;
  input: AsyncIterable<ExecInput>;
  onTimes?: (times: ExecTimes) => void;
  signal: AbortSignal;
}): AsyncGenerator<ExecOutput, void, undefined> {
  const { task, command: argv } = options;
  if (argv.length === 0) throw new EmptyCommandError();
  try {
    yield* execInGuest({
      ...options,
      guest: task.guest,
      ending: task.machine.ended,
      onDrained: task.sessionOpened(),
      argv,
    });
  } catch (error) {
    const failure = startFailure(error);
    if (failure === undefined) throw error;
    // Nothing has been sent before: a start fails before any output.
    const { terminal } = options;
    const data = Buffer.from(`${failure.text}${terminal ? "\r\n" : "\n"}`);
    yield { kind: terminal ? "stdout" : "stderr", data };
    yield { kind: "exited", exitCode: failure.exitCode, signal: 0 };
  }
}

async function* noInput(): AsyncGenerator<never> {
  yield* [];
}

/**
 * Fails with ExecTimeoutError, or if the guest can't be reached. A command that can't start is exit code 126 or 127.
 */
export async function execTask(options: {
  task: Task;
  command: readonly string[];
  timeoutMs: number;
  signal: AbortSignal;
}): Promise<ExecResult> {
  const { task, command, timeoutMs } = options;
  if (command.length === 0) throw new EmptyCommandError();
  const output = { stdout: new BoundedOutput(), stderr: new BoundedOutput() };
  const timeout = new AbortController();
  const timer = setTimeout(() => timeout.abort(new ExecTimeoutError({ command, timeoutMs })), timeoutMs);
  try {
    const session = execInGuest({
      guest: task.guest,
      argv: command,
      terminal: false,
      input: noInput(),
      killAtOnce: true,
      signal: AbortSignal.any([options.signal, timeout.signal]),
    });
    let status = { exitCode: 1, signal: 0 };
    for await (const event of session) {
      if (event.kind === "exited") status = { exitCode: event.exitCode, signal: event.signal };
      else output[event.kind].add(event.data);
    }
    return { stdout: output.stdout.bytes(), stderr: output.stderr.bytes(), ...status };
  } catch (error) {
    const failure = startFailure(error);
    if (failure === undefined) throw error;
    const { exitCode, text } = failure;
    // docker has it on standard output too, which is all that Nomad shows of a check.
    return { stdout: Buffer.from(`${text}\n`), stderr: new Uint8Array(), exitCode, signal: 0 };
  } finally {
    clearTimeout(timer);
  }
}

class BoundedOutput {
  readonly #chunks: Uint8Array[] = [];
  #length = 0;

  add(data: Uint8Array): void {
    const kept = data.subarray(0, maxOutputBytes - this.#length);
    this.#length += kept.length;
    if (kept.length > 0) this.#chunks.push(kept);
  }

  bytes(): Uint8Array {
    return Buffer.concat(this.#chunks);
  }
}
