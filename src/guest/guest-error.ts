// Translates the errors of a call to a guest into the driver's own.

import { Code, ConnectError } from "@connectrpc/connect";
import { DriverError } from "../system/error.ts";
import { GuestIncompatibleError, type GuestRefusal, GuestRefusedError, GuestUnreachableError } from "./errors.ts";

const refusals: ReadonlyMap<Code, GuestRefusal> = new Map([
  [Code.NotFound, "not_found"],
  [Code.PermissionDenied, "not_executable"],
  [Code.InvalidArgument, "invalid"],
  [Code.FailedPrecondition, "not_running"],
  [Code.ResourceExhausted, "busy"],
  [Code.Unimplemented, "unsupported"],
  [Code.Internal, "internal"],
  [Code.Unknown, "internal"],
]);

/** A status from the guest becomes GuestRefusedError with its reason; any other error means that the guest is unreachable. */
export function guestError(error: unknown): Error {
  if (
    error instanceof GuestUnreachableError ||
    error instanceof GuestRefusedError ||
    error instanceof GuestIncompatibleError
  ) {
    return error;
  }
  const converted = ConnectError.from(error);
  const { cause } = converted;
  if (cause instanceof GuestUnreachableError) return cause;
  if (converted.code === Code.DeadlineExceeded) {
    return new GuestUnreachableError({ reason: "no answer within the deadline", silent: true, cause: error });
  }
  const refusal = refusals.get(converted.code);
  // Only a status from the guest has no cause; a broken transport has one.
  if (refusal !== undefined && cause === undefined) {
    return new GuestRefusedError({ reason: refusal, words: converted.rawMessage, cause: error });
  }
  return new GuestUnreachableError({
    reason: cause instanceof DriverError ? cause.text : converted.rawMessage,
    cause: error,
  });
}
