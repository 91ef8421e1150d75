// How long an exec session waits for its program to run. A guest with little of a busy host's CPU starts programs slowly, and is not
// to be taken for one whose agent hangs: it answers others meanwhile, and says within half a second that it knows the session.

import type { GuestClient } from "../client.ts";
import { GuestUnreachableError } from "../errors.ts";

/** For the guest's next word: from the call, or from its last answer to anyone. */
const silenceMs = 3_500;
/** For its first word on the session itself, whatever it answers others. */
const firstWordMs = 3_500;
/** However much it answers. */
export const longestStartMs = 30_000;

export class StartDeadline implements Disposable {
  readonly #guest: GuestClient;
  readonly #onMissed: (error: GuestUnreachableError) => void;
  readonly #calledMs = performance.now();
  #firstWordMs = Number.POSITIVE_INFINITY;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: { guest: GuestClient; onMissed: (error: GuestUnreachableError) => void }) {
    this.#guest = options.guest;
    this.#onMissed = options.onMissed;
    this.#check();
  }

  /** It is this session's turn with the guest, which is asked for it now. */
  asked(): void {
    // One of an earlier version says nothing before the program runs.
    if (!this.#guest.tellsLongStarts) return;
    this.#firstWordMs = performance.now() + firstWordMs;
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
        Math.max(this.#calledMs, this.#guest.lastAnswerMs) + silenceMs,
        this.#calledMs + longestStartMs,
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
