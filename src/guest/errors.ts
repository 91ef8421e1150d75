// Errors between the driver and a guest. The guest's own words are hostile text and are cleaned before they become part of a
// message.

export class GuestUnreachableError extends Error {
  readonly code = "guest_unreachable";
  /** The guest said nothing within a deadline: it may only be busy. */
  readonly silent: boolean;
  constructor(reason: string, options: ErrorOptions & { silent?: boolean } = {}) {
    super(`the guest does not answer: ${reason}`, options);
    this.silent = options.silent ?? false;
  }
}

/** The guest refused a request; `reason` tells the kind. */
export class GuestRefusedError extends Error {
  readonly code = "guest_refused";
  readonly reason: GuestRefusal;
  constructor(reason: GuestRefusal, text: string, options?: ErrorOptions) {
    super(cleanGuestText(text), options);
    this.reason = reason;
  }
}

/** Guest and driver have no generation of the protocol in common. */
export class GuestIncompatibleError extends Error {
  readonly code = "guest_incompatible";
  constructor(reason: string, options?: ErrorOptions) {
    // Short, because Nomad shows the user little more than a hundred bytes of it.
    super(`${reason}: restart the task`, options);
  }
}

export type GuestRefusal =
  | "not_found"
  | "not_executable"
  | "invalid"
  | "not_running"
  | "busy"
  | "unsupported"
  | "internal";

/** One printable line of at most `maxLength` characters. */
export function cleanGuestText(text: string, maxLength = 300): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is to be removed
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, " ").slice(0, maxLength);
}
