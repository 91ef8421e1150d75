// How long an exec session waits for its program to run. A guest that gets little CPU on a busy host starts programs slowly.
// Two signs tell it from a guest whose agent hangs: it answers other calls, and it acknowledges a session within half a second.

import type { GuestClient } from "../client.ts";
import { GuestUnreachableError } from "../errors.ts";

/** From the call to the program's start, however much the guest answers meanwhile. */
export const maxStartMs = 30_000;

export class StartDeadline implements Disposable {
  readonly #guest: GuestClient;
  readonly #onMissed: (error: GuestUnreachableError) => void;
  readonly #calledMs = performance.now();
  /** By when the guest must have acknowledged the session itself, even if it answers other calls. */
  #firstWordMs = Number.POSITIVE_INFINITY;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: { guest: GuestClient; onMissed: (error: GuestUnreachableError) => void }) {
    this.#guest = options.guest;
    this.#onMissed = options.onMissed;
    this.#check();
  }

  /** The session leaves the queue: the driver asks the guest for it now. */
  attaching(): void {
    this.#firstWordMs = performance.now() + this.#guest.firstAnswerMs;
    this.#check();
  }

  /** The guest knows of the session. */
  acknowledged(): void {
    this.#guest.noteAnswer();
    this.#firstWordMs = Number.POSITIVE_INFINITY;
  }

  /** The program runs. */
  started(): void {
    this.#guest.noteAnswer();
    this[Symbol.dispose]();
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
  }

  #check(): void {
    clearTimeout(this.#timer);
    const now = performance.now();
    const patienceMs =
      Math.min(
        Math.max(this.#calledMs, this.#guest.lastAnswerMs) + this.#guest.firstAnswerMs,
        this.#calledMs + maxStartMs,
        this.#firstWordMs,
      ) - now;
    if (patienceMs > 0) {
      this.#timer = setTimeout(() => this.#check(), patienceMs);
      return;
    }
    const waited = Math.round((now - this.#calledMs) / 1000);
    this.#onMissed(new GuestUnreachableError({ reason: `exec: no answer within ${waited} s` }));
  }
}
