// One exec session in a guest, as an async iterable: input in, output and the exit out. Back pressure works both ways: input is
// taken only as fast as the connection takes it, and output is read only as fast as it is consumed.
import { createClient } from "@connectrpc/connect";
import { Guest } from "../../gen/litegix/guest/v1/guest_pb.js";
import type { GuestClient } from "../client.ts";
import { GuestUnreachableError } from "../errors.ts";
import { guestError } from "../guest-error.ts";
import { execByBulk } from "./bulk.ts";
import { type ExecInput, ExecInputQueue } from "./input.ts";
import { longestStartMs, StartDeadline } from "./start-deadline.ts";

export type { ExecInput } from "./input.ts";

export type ExecOutput =
  | { readonly kind: "stdout"; readonly data: Uint8Array }
  | { readonly kind: "stderr"; readonly data: Uint8Array }
  | { readonly kind: "exited"; readonly exitCode: number; readonly signal: number };

export interface ExecOptions {
  readonly guest: GuestClient;
  readonly argv: readonly string[];
  readonly terminal: boolean;
  readonly input: AsyncIterable<ExecInput>;
  /** Called when the program has ended, with where the time went. */
  readonly onTimes?: (times: ExecTimes) => void;
  /** Aborts when the task has ended: the guest goes soon, and does not wait for who reads slowly. Default: never. */
  readonly ending?: AbortSignal;
  /** Called when the guest has no more to say in this session, though the caller may have to take it yet. Maybe more than once. */
  readonly onFetched?: () => void;
  /** Aborting it ends the session and the processes in it: hang-up, then kill, or with `killAtOnce` kill. */
  readonly signal: AbortSignal;
  readonly killAtOnce?: boolean;
}

export interface ExecTimes {
  /** From the call to a connection with the guest. */
  readonly dialMs: number;
  /** From then to the guest's word that the program runs. */
  readonly startMs: number;
  /** Of that, what the guest needed by its own clock. */
  readonly guestMs: number;
  /** From then to the program's end. */
  readonly runMs: number;
}

/** Fails with GuestRefusedError (no such program, not running), GuestIncompatibleError or GuestUnreachableError. */
export async function* execInGuest(options: ExecOptions): AsyncGenerator<ExecOutput, void, undefined> {
  const { guest } = options;
  const stop = new AbortController();
  const signal = AbortSignal.any([options.signal, stop.signal]);
  const calledMs = performance.now();
  using start = new StartDeadline({ guest, onMissed: (error) => stop.abort(error) });
  let leaveGate = (): void => {};
  const queue = new ExecInputQueue();
  signal.addEventListener("abort", () => queue.close(), { once: true });
  try {
    await guest.greet(signal);
    leaveGate = await guest.startGate.enter(signal);
    start.asked();
    void fill(queue, options.input);
    const socket = await guest.openBulk({ timeoutMs: longestStartMs, signal });
    const dialledMs = performance.now();
    let startedMs = dialledMs;
    let guestMs = 0;
    const session = { ...options, input: queue, signal };
    const { ending = new AbortController().signal, onFetched = () => {} } = options;
    for await (const message of socket === undefined
      ? execByCall(session)
      : execByBulk({ ...session, ending, onFetched, socket })) {
      switch (message.kind) {
        case "taken":
          start.heard();
          break;
        case "started":
          start.met();
          leaveGate();
          startedMs = performance.now();
          guestMs = message.startUs / 1000;
          break;
        case "exited":
          options.onTimes?.({
            dialMs: dialledMs - calledMs,
            startMs: startedMs - dialledMs,
            guestMs,
            runMs: performance.now() - startedMs,
          });
          yield { kind: "exited", exitCode: message.exitCode & 0xff, signal: message.signal & 0x7f };
          return;
        default:
          yield message;
      }
    }
    throw new GuestUnreachableError("the session ended without an exit status");
  } catch (error) {
    options.signal.throwIfAborted();
    if (stop.signal.aborted) throw stop.signal.reason;
    throw guestError(error);
  } finally {
    leaveGate();
    stop.abort(new Error("the session has ended"));
    options.onFetched?.();
  }
}

type SessionMessage = ExecOutput | { readonly kind: "started"; readonly startUs: number } | { readonly kind: "taken" };

interface SessionOptions extends Omit<ExecOptions, "input"> {
  readonly input: ExecInputQueue;
}

/** The way of guests from before the bulk streams, which may outlive an upgrade of the driver. */
async function* execByCall(options: SessionOptions): AsyncGenerator<SessionMessage, void, undefined> {
  const { signal } = options;
  using connection = options.guest.openConnection(longestStartMs);
  const client = createClient(Guest, connection.transport);
  for await (const { response } of client.exec(requests(options), { signal })) {
    switch (response.case) {
      case "started":
        yield { kind: "started", startUs: response.value.startUs };
        break;
      case "stdout":
      case "stderr":
        yield { kind: response.case, data: response.value };
        break;
      case "exited":
        yield { kind: "exited", exitCode: response.value.exitCode, signal: response.value.signal };
        break;
      default:
        break;
    }
  }
}

type ExecRequestInit =
  | { request: { case: "start"; value: { argv: string[]; terminal: boolean; killAtOnce: boolean } } }
  | { request: { case: "stdin"; value: Uint8Array } }
  | { request: { case: "stdinEnd"; value: Record<string, never> } }
  | { request: { case: "resize"; value: { rows: number; columns: number } } };

async function* requests(options: SessionOptions): AsyncGenerator<ExecRequestInit> {
  const { argv, terminal, killAtOnce = false, input: queue, signal } = options;
  yield { request: { case: "start", value: { argv: [...argv], terminal, killAtOnce } } };
  // The end of the request stream would mean the end of the session to HTTP/2; so it ends with the session only.
  for (let next = await queue.take(); next !== undefined && !signal.aborted; next = await queue.take()) {
    yield toRequest(next);
  }
}

async function fill(queue: ExecInputQueue, input: AsyncIterable<ExecInput>): Promise<void> {
  try {
    for await (const item of input) await queue.add(item);
  } catch {
    // The caller's side broke; it aborts the session itself.
  }
}

function toRequest(input: ExecInput): ExecRequestInit {
  switch (input.kind) {
    case "stdin":
      return { request: { case: "stdin", value: input.data } };
    case "stdin_end":
      return { request: { case: "stdinEnd", value: {} } };
    case "resize":
      return { request: { case: "resize", value: { rows: input.rows, columns: input.columns } } };
  }
}
