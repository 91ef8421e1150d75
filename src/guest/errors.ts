// Errors between the driver and a guest. The guest's own words are hostile text, which the base class cleans; here it is bounded.
import { driverError, printable } from "../system/error.ts";

export class GuestUnreachableError extends driverError(
  "guest_unreachable",
  (facts: {
    reason: string;
    /** The guest said nothing within a deadline: it may only be busy. */
    silent?: boolean;
  }) => `the guest does not answer: ${facts.reason}`,
) {}

/** The guest refused a request; `reason` tells the kind. */
export class GuestRefusedError extends driverError("guest_refused", (facts: { reason: GuestRefusal; words: string }) =>
  printable(facts.words),
) {}

/** Guest and driver have no generation of the protocol in common. Short, because Nomad shows little more than 100 bytes of it. */
export class GuestIncompatibleError extends driverError(
  "guest_incompatible",
  (facts: { reason: string }) => `${facts.reason}: restart the task`,
) {}

/** The guest breaks the form of a bulk stream. */
export class BulkFrameError extends driverError("bulk_frame", (facts: { problem: string }) => facts.problem) {}

export type GuestRefusal =
  | "not_found"
  | "not_executable"
  | "invalid"
  | "not_running"
  | "busy"
  | "unsupported"
  | "internal";
