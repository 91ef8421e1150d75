// One exec session in a guest, as an async iterable: input in, output and the exit out. Back pressure works both ways: input is
// taken only as fast as the connection takes it, and output is read only as fast as it is consumed.
import type { GuestClient } from "../client.ts";
import { GuestUnreachableError } from "../errors.ts";
import { guestError } from "../guest-error.ts";
import { execByBulk } from "./bulk.ts";
import { type ExecInput, ExecInputQueue } from "./input.ts";
import { maxStartMs, StartDeadline } from "./start-deadline.ts";

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
  /** Aborts when the task has ended: the guest ends soon and does not wait for a slow reader. Default: never. */
  readonly ending?: AbortSignal;
  /** Called when the driver holds the guest's last output of this session, perhaps before the caller takes it; possibly twice. */
  readonly onDrained?: () => void;
  /** Aborting it ends the session and its processes: first hang-up, then kill; with `killAtOnce` only kill. */
  readonly signal: AbortSignal;
  readonly killAtOnce?: boolean;
}

export interface ExecTimes {
  /** From the call to a connection with the guest. */
  readonly dialMs: number;
  /** From then until the guest says that the program runs. */
  readonly startMs: number;
  /** The guest's own share of that, by its clock. */
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
  let slot: Disposable | undefined;
  const queue = new ExecInputQueue();
  signal.addEventListener("abort", () => queue.close(), { once: true });
  try {
    await guest.greetPatiently(signal);
    slot = await guest.startSlots.take(signal);
    start.attaching();
    void pump(queue, options.input);
    const socket = await guest.attach({ timeoutMs: maxStartMs, signal });
    const dialledMs = performance.now();
    let startedMs = dialledMs;
    let guestMs = 0;
    const { ending = new AbortController().signal, onDrained = () => {} } = options;
    for await (const message of execByBulk({ ...options, input: queue, ending, onDrained, socket, signal })) {
      switch (message.kind) {
        case "taken":
          start.acknowledged();
          break;
        case "started":
          start.started();
          slot[Symbol.dispose]();
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
    throw new GuestUnreachableError({ reason: "the session ended without an exit status" });
  } catch (error) {
    options.signal.throwIfAborted();
    if (stop.signal.aborted) throw stop.signal.reason;
    throw guestError(error);
  } finally {
    slot?.[Symbol.dispose]();
    stop.abort(new Error("the session has ended"));
    options.onDrained?.();
  }
}

async function pump(queue: ExecInputQueue, input: AsyncIterable<ExecInput>): Promise<void> {
  try {
    for await (const item of input) await queue.add(item);
  } catch {
    // The caller's side broke; it aborts the session itself.
  }
}
