// The errors of a VMM as a program.
import { driverError } from "../system/error.ts";

export class VmmMissingError extends driverError(
  "vmm_missing",
  (facts: { program: string; path: string; cure: string }) =>
    `${facts.program} (${facts.path}) can't be run: ${facts.cure}`,
) {}

/** Firecracker refused a call of its API, or did not answer it; the message is its own. */
export class FirecrackerApiError extends driverError(
  "firecracker_api",
  (facts: { call: string; faultMessage: string }) => `Firecracker refused ${facts.call}: ${facts.faultMessage}`,
) {}

/** The VMM is installed but can't run guests. */
export class UnusableVmmError extends driverError(
  "vmm_unusable",
  (facts: { program: string; reason: string }) => `${facts.program} can't run guests: ${facts.reason}`,
) {}

/** The jail around a VM can't be made. */
export class JailError extends driverError(
  "jail",
  (facts: { reason: string; cure: string }) => `the VM can't be jailed: ${facts.reason}; ${facts.cure}`,
) {}

/** Firecracker runs, but can't be talked to. */
export class ApiSocketMissingError extends driverError(
  "api_socket_missing",
  (facts: { path: string; timeoutMs: number }) =>
    `Firecracker made no API socket at ${facts.path} within ${facts.timeoutMs / 1000} s`,
) {}
