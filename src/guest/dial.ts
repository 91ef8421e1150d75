// One connection to a port in the guest, through the unix socket of Firecracker's "hybrid vsock" (docs/vsock.md of
// Firecracker): "CONNECT port\n" in one write, answered by "OK hostport\n". A close without an answer means that nobody listens yet.
// The bytes behind the newline belong to the stream. There is no half-close: callers destroy the socket, never end it.
import { connect, type Socket } from "node:net";
import { GuestUnreachableError } from "./errors.ts";

export interface DialOptions {
  readonly socketPath: string;
  readonly port: number;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

/** "OK " and a 32-bit number and the newline. */
const maxAnswerBytes = 32;

/** Fails with GuestUnreachableError; the caller decides whether to try again. */
export function dial(options: DialOptions): Promise<Socket> {
  const { promise, resolve, reject } = Promise.withResolvers<Socket>();
  const socket = connect(options.socketPath);
  const deadline = AbortSignal.timeout(options.timeoutMs);
  const release = (): void => {
    socket.off("readable", onReadable).off("error", onError).off("close", onClose);
    deadline.removeEventListener("abort", onDeadline);
    options.signal?.removeEventListener("abort", onAbort);
  };
  const fail = (error: Error): void => {
    release();
    // A late error of an abandoned socket must not end the process.
    socket.on("error", () => {});
    socket.destroy();
    reject(error);
  };
  const onError = (error: Error): void => fail(new GuestUnreachableError({ reason: error.message, cause: error }));
  const onClose = (): void => fail(new GuestUnreachableError({ reason: "nobody listens on its port" }));
  const onDeadline = (): void =>
    fail(new GuestUnreachableError({ reason: `no connection within ${options.timeoutMs} ms`, silent: true }));
  const onAbort = (): void => fail(options.signal?.reason as Error);
  let answer = Buffer.alloc(0);
  const onReadable = (): void => {
    for (let chunk: Buffer | null = socket.read(); chunk !== null; chunk = socket.read()) {
      answer = Buffer.concat([answer, chunk]);
    }
    const newline = answer.indexOf(10);
    if (newline < 0 && answer.length <= maxAnswerBytes) return;
    if (newline < 0 || newline > maxAnswerBytes || !answer.toString("latin1", 0, newline).startsWith("OK ")) {
      fail(new GuestUnreachableError({ reason: "the vsock socket answers with something else than OK" }));
      return;
    }
    release();
    if (newline + 1 < answer.length) socket.unshift(answer.subarray(newline + 1));
    resolve(socket);
  };
  socket.on("readable", onReadable).on("error", onError).on("close", onClose);
  socket.once("connect", () => socket.write(`CONNECT ${options.port}\n`));
  deadline.addEventListener("abort", onDeadline);
  if (options.signal?.aborted === true) onAbort();
  else options.signal?.addEventListener("abort", onAbort);
  return promise;
}
