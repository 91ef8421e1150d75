// How long an exec session waits for its program to run. A guest with little of a busy host's CPU starts programs slowly. It is
// told from one whose agent hangs by its answers to others, and by its word, within half a second, that it knows the session.

import type { GuestClient } from "../client.ts";
import { GuestUnreachableError } from "../errors.ts";

/** From the call to the program's start, however much the guest answers meanwhile. */
export const maxStartMs = 30_000;

export class StartDeadline implements Disposable {
  readonly #guest: GuestClient;
  readonly #onMissed: (error: GuestUnreachableError) => void;
  readonly #calledMs = performance.now();
  /** When the guest must have said something of the session itself, whatever it answers others. */
  #firstWordMs = Number.POSITIVE_INFINITY;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: { guest: GuestClient; onMissed: (error: GuestUnreachableError) => void }) {
    this.#guest = options.guest;
    this.#onMissed = options.onMissed;
    this.#check();
  }

  /** It is this session's turn with the guest, which is asked for it now. */
  asked(): void {
    this.#firstWordMs = performance.now() + this.#guest.firstAnswerMs;
    this.#check();
  }

  /** The guest knows of the session. */
  heard(): void {
    this.#guest.noteAnswer();
    this.#firstWordMs = Number.POSITIVE_INFINITY;
  }

  /** The program runs. */
  met(): void {
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
    this.#onMissed(new GuestUnreachableError(`exec: no answer within ${waited} s`));
  }
}
