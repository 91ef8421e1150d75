// Everything that can go wrong between an image's name and its squashfs. Each error has a stable code, its facts as
// fields, and a one-line message fit for a Nomad task event.
import type { CommandError } from "../system/errors.ts";

export const imageErrorCodes = [
  "INVALID_REFERENCE",
  "INVALID_REGISTRY_CONFIG",
  "REGISTRY_REQUEST_FAILED",
  "DIGEST_MISMATCH",
  "UNSUPPORTED_IMAGE",
  "BAD_MANIFEST",
  "BAD_LAYER",
  "PULL_FAILED",
  "PULL_TIMED_OUT",
  "PULL_ABORTED",
  "PULL_WORKER_FAILED",
  "CONVERSION_FAILED",
  "STORE_FAILED",
] as const;

export type ImageErrorCode = (typeof imageErrorCodes)[number];

export abstract class ImageError extends Error {
  abstract readonly code: ImageErrorCode;

  constructor(message: string, cause?: unknown) {
    super(oneLine(message), cause === undefined ? undefined : { cause });
    this.name = new.target.name;
  }
}

export class InvalidReferenceError extends ImageError {
  readonly code = "INVALID_REFERENCE";
  readonly reference: string;

  constructor(facts: { readonly reference: string; readonly problem: string }) {
    const shown = printable(facts.reference.slice(0, 300));
    super(`"${shown}" is not an image reference: ${facts.problem}; write [host/]name[:tag][@sha256:digest]`);
    this.reference = facts.reference;
  }
}

export class InvalidRegistryConfigError extends ImageError {
  readonly code = "INVALID_REGISTRY_CONFIG";

  constructor(facts: {
    readonly host: string;
    readonly mirror: string;
    readonly problem: string;
    readonly cause?: unknown;
  }) {
    super(
      `registry "${printable(facts.host)}": mirror "${printable(facts.mirror)}" ${facts.problem}; write http(s)://host:port or host:port`,
      facts.cause,
    );
  }
}

/** One endpoint's answer, or the lack of one. `place` is what the operator knows it by. */
export class RegistryRequestError extends ImageError {
  readonly code = "REGISTRY_REQUEST_FAILED";
  readonly place: string;
  readonly status: number | undefined;
  readonly cure: string | undefined;
  /** In the middle of a body, by what passes: asked for again, it may come whole. */
  readonly brokeOff: boolean;

  constructor(facts: {
    readonly place: string;
    readonly problem: string;
    readonly status?: number;
    readonly cure?: string;
    readonly brokeOff?: boolean;
    readonly cause?: unknown;
  }) {
    super(`${facts.place}: ${facts.problem}`, facts.cause);
    this.place = facts.place;
    this.status = facts.status;
    this.cure = facts.cure;
    this.brokeOff = facts.brokeOff ?? false;
  }

  get retryable(): boolean {
    return this.status === undefined || this.status === 429 || this.status >= 500;
  }
}

export class DigestMismatchError extends ImageError {
  readonly code = "DIGEST_MISMATCH";
  readonly expected: string;
  readonly actual: string;

  constructor(facts: { readonly what: string; readonly expected: string; readonly actual: string }) {
    super(`${facts.what} should have digest ${facts.expected} but has ${facts.actual}`);
    this.expected = facts.expected;
    this.actual = facts.actual;
  }
}

export class UnsupportedImageError extends ImageError {
  readonly code = "UNSUPPORTED_IMAGE";

  constructor(facts: { readonly problem: string }) {
    super(facts.problem);
  }
}

export class BadManifestError extends ImageError {
  readonly code = "BAD_MANIFEST";

  constructor(facts: { readonly what: string; readonly problem: string; readonly cause?: unknown }) {
    super(`${facts.what} is malformed: ${facts.problem}`, facts.cause);
  }
}

/** A layer that is not a well-formed, well-behaved tar archive. */
export class BadLayerError extends ImageError {
  readonly code = "BAD_LAYER";
  readonly problem: string;

  constructor(facts: { readonly problem: string; readonly layer?: string; readonly cause?: unknown }) {
    super(facts.layer === undefined ? facts.problem : `layer ${facts.layer}: ${facts.problem}`, facts.cause);
    this.problem = facts.problem;
  }
}

/** The whole pull, with every endpoint's failure told. */
export class PullFailedError extends ImageError {
  readonly code = "PULL_FAILED";
  readonly reference: string;
  readonly failures: readonly ImageError[];
  /** A later try may succeed: a registry did not answer, or said that it can't now. */
  readonly retryable: boolean;

  constructor(facts: { readonly reference: string; readonly failures: readonly ImageError[] }) {
    const told = facts.failures.map((failure) => failure.message);
    const cures = facts.failures.map((failure) => (failure instanceof RegistryRequestError ? failure.cure : undefined));
    const cure = cures.findLast((text) => text !== undefined);
    super(
      [`can't pull "${facts.reference}": ${told.join("; ")}`, ...(cure === undefined ? [] : [cure])].join("; "),
      facts.failures.at(-1),
    );
    this.reference = facts.reference;
    this.failures = facts.failures;
    this.retryable = facts.failures.some((failure) => failure instanceof RegistryRequestError && failure.retryable);
  }
}

export class PullTimedOutError extends ImageError {
  readonly code = "PULL_TIMED_OUT";

  constructor(facts: { readonly reference: string; readonly timeoutMs: number; readonly cause?: unknown }) {
    super(
      `can't pull "${facts.reference}": not done within ${facts.timeoutMs / 1000} s; raise image_pull_timeout or check the registry`,
      facts.cause,
    );
  }
}

export class PullAbortedError extends ImageError {
  readonly code = "PULL_ABORTED";

  constructor(facts: { readonly reference: string; readonly cause?: unknown }) {
    super(`pull of "${facts.reference}" was cancelled`, facts.cause);
  }
}

/** The child that pulls ended without an answer, or answered what is no answer. */
export class PullWorkerFailedError extends ImageError {
  readonly code = "PULL_WORKER_FAILED";

  constructor(facts: { readonly reference: string; readonly problem: string; readonly cause?: unknown }) {
    super(`can't pull "${facts.reference}": the pull process ${facts.problem}`, facts.cause);
  }
}

/** An error that a pull worker reported: code and message are its own. */
export class ReportedImageError extends ImageError {
  readonly code: ImageErrorCode;
  readonly retryable: boolean;

  constructor(facts: { readonly code: ImageErrorCode; readonly message: string; readonly retryable: boolean }) {
    super(facts.message);
    this.code = facts.code;
    this.retryable = facts.retryable;
  }
}

export class ConversionFailedError extends ImageError {
  readonly code = "CONVERSION_FAILED";

  constructor(facts: { readonly reference: string; readonly cause: CommandError }) {
    const missing = facts.cause.code === "command_not_started";
    super(
      `can't convert "${facts.reference}" to a disk: ${facts.cause.message}${missing ? "; on Debian: apt install squashfs-tools" : ""}`,
      facts.cause,
    );
  }
}

export class StoreFailedError extends ImageError {
  readonly code = "STORE_FAILED";

  constructor(facts: { readonly directory: string; readonly problem: string; readonly cause?: unknown }) {
    super(`image store ${facts.directory}: ${facts.problem}`, facts.cause);
  }
}

/** Text from a registry or an image, made safe for a log line. */
export function printable(text: string): string {
  return text.replace(/[^\x20-\x7e]/g, (char) => `\\x${(char.codePointAt(0) ?? 0).toString(16).padStart(2, "0")}`);
}

function oneLine(text: string): string {
  return text.replace(/\s*[\r\n]+\s*/g, "; ");
}
