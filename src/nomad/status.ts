// Maps the driver's errors to gRPC statuses as Nomad reads them. To Nomad, UNAVAILABLE and CANCELLED mean that the
// plugin died, so they must never stand for anything else. Plain errors are UNKNOWN, as Go plugins send them.
import { Code, ConnectError } from "@connectrpc/connect";
import { RecoverableError } from "../driver/errors.ts";
import { RecoverableErrorSchema } from "../gen/nomad/structs/structs_pb.js";
import { printable } from "../system/error.ts";

export function toStatus(error: unknown): ConnectError {
  const message = printable(error instanceof Error ? error.message : String(error), Number.POSITIVE_INFINITY);
  if (error instanceof RecoverableError) {
    // connect writes grpc-status-details-bin with the same code inside, as grpc-go requires.
    const detail = { desc: RecoverableErrorSchema, value: { recoverable: true } };
    return new ConnectError(message, Code.FailedPrecondition, undefined, [detail]);
  }
  return new ConnectError(message, Code.Unknown);
}

/** Runs a unary handler's body and turns its errors into statuses. */
export async function answering<T>(run: () => Promise<T> | T): Promise<T> {
  try {
    return await run();
  } catch (error) {
    throw toStatus(error);
  }
}

/** The same for a stream. A stream that the host cancelled ends quietly. */
export async function* streaming<T>(
  signal: AbortSignal,
  run: () => AsyncIterable<T>,
): AsyncGenerator<T, void, undefined> {
  try {
    yield* run();
  } catch (error) {
    if (!signal.aborted) throw toStatus(error);
  }
}

export function untilAborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
