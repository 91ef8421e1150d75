// What can go wrong with a VMM as a program.

export class VmmMissingError extends Error {
  readonly code = "vmm_missing";
  readonly path: string;
  constructor(program: string, path: string, cure: string, options?: ErrorOptions) {
    super(`${program} (${path}) can't be run: ${cure}`, options);
    this.path = path;
  }
}

/** Firecracker refused a call of its API, or did not answer it; the message is its own. */
export class FirecrackerApiError extends Error {
  readonly code = "firecracker_api";
  readonly call: string;
  readonly faultMessage: string;
  constructor(facts: { call: string; faultMessage: string; cause?: unknown }) {
    super(`Firecracker refused ${facts.call}: ${facts.faultMessage}`, { cause: facts.cause });
    this.call = facts.call;
    this.faultMessage = facts.faultMessage;
  }
}

/** The VMM is installed but can't run guests. */
export class UnusableVmmError extends Error {
  readonly code = "vmm_unusable";
  constructor(program: string, reason: string, options?: ErrorOptions) {
    super(`${program} can't run guests: ${reason}`, options);
  }
}

/** The jail around a VM can't be made. */
export class JailError extends Error {
  readonly code = "jail";
  constructor(reason: string, cure: string, options?: ErrorOptions) {
    super(`the VM can't be jailed: ${reason}; ${cure}`, options);
  }
}

/** Firecracker runs, but can't be talked to. */
export class ApiSocketMissingError extends Error {
  readonly code = "api_socket_missing";
  constructor(path: string, timeoutMs: number) {
    super(`Firecracker made no API socket at ${path} within ${timeoutMs / 1000} s`);
  }
}
