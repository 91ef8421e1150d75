// Errors on the way from an image's name to its squashfs.
import { DriverError, driverError, reasonOf } from "../system/error.ts";
import type { CommandError } from "../system/errors.ts";

export class InvalidReferenceError extends driverError(
  "invalid_reference",
  (facts: { reference: string; problem: string }) =>
    `${JSON.stringify(facts.reference.slice(0, 300))} is not an image reference: ${facts.problem}; write [host/]name[:tag][@sha256:digest]`,
) {}

export class InvalidRegistryConfigError extends driverError(
  "invalid_registry_config",
  (facts: { host: string; mirror: string; problem: string }) =>
    `registry "${facts.host}": mirror "${facts.mirror}" ${facts.problem}; write http(s)://host:port or host:port`,
) {}

/** Refused before any connection. */
export class RegistryNotAllowedError extends driverError(
  "registry_not_allowed",
  (facts: { reference: string; host: string; reason: string }) =>
    `"${facts.reference}": the registry ${facts.host} ${facts.reason}; the operator allows it with registries_allowed or a registry block in the plugin's config`,
) {}

/** Refused after its name was resolved. */
export class RegistryAddressError extends driverError(
  "registry_address_refused",
  (facts: { place: string; host: string; kind: string }) =>
    `${facts.place}: ${facts.host} is ${facts.kind}; the operator opens it with registries_allowed or a registry block in the plugin's config`,
) {}

/** One endpoint's refusal, or the lack of an answer. */
export class RegistryRequestError extends driverError(
  "registry_request_failed",
  (facts: {
    /** The endpoint, as the operator knows it. */
    place: string;
    problem: string;
    status?: number | undefined;
    cure?: string | undefined;
    /** The body ended half-way for a passing reason: another request may bring all of it. */
    brokeOff?: boolean;
  }) => `${facts.place}: ${facts.problem}`,
) {
  get retryable(): boolean {
    return this.status === undefined || this.status === 429 || this.status >= 500;
  }
}

export class DigestMismatchError extends driverError(
  "digest_mismatch",
  (facts: { what: string; expected: string; actual: string }) =>
    `${facts.what} should have digest ${facts.expected} but has ${facts.actual}`,
) {}

export class UnsupportedImageError extends driverError(
  "unsupported_image",
  (facts: { problem: string }) => facts.problem,
) {}

export class BadManifestError extends driverError(
  "bad_manifest",
  (facts: { what: string; problem: string }) => `${facts.what} is malformed: ${facts.problem}`,
) {}

/** A layer that is not a well-formed, well-behaved tar archive. */
export class BadLayerError extends driverError("bad_layer", (facts: { problem: string; layer?: string }) =>
  facts.layer === undefined ? facts.problem : `layer ${facts.layer}: ${facts.problem}`,
) {}

/** A layer or an image that would take too much of the host's memory. */
export class ImageLimitError extends driverError(
  "image_limit",
  (facts: { problem: string; layer?: string | undefined }) =>
    `${facts.layer === undefined ? "" : `layer ${facts.layer}: `}${facts.problem}; build the image with less of them`,
) {}

/** The whole pull, with every endpoint's failure. */
export class PullFailedError extends driverError(
  "pull_failed",
  (facts: { reference: string; failures: readonly DriverError[] }) => {
    const cures = facts.failures.map((failure) => (failure instanceof RegistryRequestError ? failure.cure : undefined));
    const cure = cures.findLast((text) => text !== undefined);
    const told = [...facts.failures.map(reasonOf), ...(cure === undefined ? [] : [cure])];
    return `can't pull "${facts.reference}": ${told.join("; ")}`;
  },
) {
  /** No endpoint answered at all; a refusal or a missing image is an answer. */
  get unreachable(): boolean {
    return this.failures.every((failure) => failure instanceof RegistryRequestError && failure.status === undefined);
  }

  /** A later try may succeed: a registry did not answer, or said that it can't now. */
  get retryable(): boolean {
    return this.failures.some((failure) => failure instanceof RegistryRequestError && failure.retryable);
  }
}

export class PullTimedOutError extends driverError(
  "pull_timed_out",
  (facts: { reference: string; timeoutMs: number }) =>
    `can't pull "${facts.reference}": not done within ${facts.timeoutMs / 1000} s; raise image_pull_timeout or check the registry`,
) {}

export class PullAbortedError extends driverError(
  "pull_aborted",
  (facts: { reference: string }) => `pull of "${facts.reference}" was cancelled`,
) {}

/** The child that pulls ended without an answer. */
export class PullWorkerFailedError extends driverError(
  "pull_worker_failed",
  (facts: { reference: string; problem: string }) =>
    `can't pull "${facts.reference}": the pull process ${facts.problem}`,
) {}

/** The kernel, or the JavaScript engine, ended the pull for its use of memory. */
export class PullOutOfMemoryError extends driverError(
  "pull_out_of_memory",
  (facts: { reference: string; memoryMib: number }) =>
    `can't pull "${facts.reference}": to convert it takes more than the ${facts.memoryMib} MiB that a pull may use; raise pull_memory_max in the plugin's config if you trust the image`,
) {}

/** An error that a pull worker reported, under its own code. */
export class ReportedImageError extends DriverError {
  declare readonly retryable: boolean;
  /** No registry answered. */
  declare readonly unreachable: boolean;

  constructor(facts: {
    readonly code: string;
    readonly message: string;
    readonly retryable: boolean;
    readonly unreachable: boolean;
  }) {
    const { code, message, retryable, unreachable } = facts;
    super(code, message, { retryable, unreachable });
  }
}

export class ConversionFailedError extends driverError(
  "conversion_failed",
  (facts: { reference: string; cause: CommandError }) => {
    const cure = facts.cause.code === "command_not_started" ? "; on Debian: apt install squashfs-tools" : "";
    return `can't convert "${facts.reference}" to a disk: ${reasonOf(facts.cause)}${cure}`;
  },
) {}

export class StoreFailedError extends driverError(
  "store_failed",
  (facts: { directory: string; problem: string }) => `image store ${facts.directory}: ${facts.problem}`,
) {}
