// An exec session over a bulk stream: the bytes between program and host with four more in front of each piece. Back pressure is
// the socket's own, both ways; at the task's end, with which the guest soon goes, its last output is fetched for a client who is slow.
import type { Socket } from "node:net";
import { ConnectError } from "@connectrpc/connect";
import { ExecStartSchema, FrameKind, TerminalSizeSchema } from "../../gen/litegix/guest/v1/guest_pb.js";
import { guestError } from "../guest-error.ts";
import { type GuestFrame, GuestFrameReader, hostFrame, hostMessage, stdinWindowBytes } from "./frames.ts";
import type { ExecInput, ExecInputQueue } from "./input.ts";
import { readAhead } from "./read-ahead.ts";

/** What a program can have left in its pipes (a megabyte each) and on the way, twice over. */
const mostLeftBytes = 4 << 20;
const nothing = new Uint8Array();

/**
 * Fails with what guestError makes of a refusal, and with errors of socket and frames. `signal` ends it, and with it the
 * program. The socket is destroyed at the end.
 */
export async function* execByBulk(options: {
  socket: Socket;
  argv: readonly string[];
  terminal: boolean;
  killAtOnce?: boolean;
  input: ExecInputQueue;
  /** Aborts when the task has ended. */
  ending: AbortSignal;
  /** Called when nothing more is to come from the guest, whatever the caller has still to take. */
  onFetched: () => void;
  signal: AbortSignal;
}): AsyncGenerator<Exclude<GuestFrame, { kind: "refused" }>, void, undefined> {
  const { socket, signal } = options;
  const end = (): void => void socket.destroy();
  // Reading reports it; an unhandled event would end the process.
  socket.on("error", () => {});
  signal.addEventListener("abort", end, { once: true });
  try {
    signal.throwIfAborted();
    const { argv, terminal, killAtOnce = false } = options;
    send(socket, hostMessage(FrameKind.EXEC, ExecStartSchema, { argv: [...argv], terminal, killAtOnce }));
    const window = new StdinWindow();
    socket.once("close", () => {
      window.open(Number.POSITIVE_INFINITY);
      options.onFetched();
    });
    void sendInput(socket, options.input, window);
    const frames = new GuestFrameReader();
    const parse = function* (chunk: Uint8Array): Generator<GuestFrame> {
      for (const frame of frames.read(chunk)) {
        yield frame;
        if (frame.kind === "exited") options.onFetched();
      }
    };
    for await (const frame of readAhead({ socket, parse, ending: options.ending, mostBytes: mostLeftBytes })) {
      if (frame.kind === "refused") throw guestError(new ConnectError(frame.message, frame.code));
      if (frame.kind === "taken") window.open(frame.bytes);
      yield frame;
    }
  } finally {
    signal.removeEventListener("abort", end);
    socket.destroy();
  }
}

/** False: what is held for the socket is enough; wait for `drained`. */
function send(socket: Socket, parts: readonly Uint8Array[]): boolean {
  socket.cork();
  for (const part of parts) if (part.length > 0) socket.write(part);
  socket.uncork();
  return !socket.writableNeedDrain;
}

async function drained(socket: Socket): Promise<void> {
  await new Promise<void>((resolve) => {
    const done = (): void => {
      socket.off("drain", done).off("close", done);
      resolve();
    };
    socket.on("drain", done).on("close", done);
    if (socket.destroyed) done();
  });
}

class StdinWindow {
  #sent = 0;
  #taken = 0;
  #wake: (() => void) | undefined;

  /** The guest has taken so much since the session's beginning. */
  open(taken: number): void {
    this.#taken = Math.max(this.#taken, taken);
    this.#wake?.();
  }

  async enter(bytes: number): Promise<void> {
    this.#sent += bytes;
    while (this.#sent - this.#taken > stdinWindowBytes) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}

async function sendInput(socket: Socket, queue: ExecInputQueue, window: StdinWindow): Promise<void> {
  for (let next = await queue.take(); next !== undefined && !socket.destroyed; next = await queue.take()) {
    if (next.kind === "stdin") await window.enter(next.data.length);
    // The guest's word opens the window, and a hostile guest may say anything: the socket bounds what is held for it.
    if (!socket.destroyed && !send(socket, toFrame(next))) await drained(socket);
  }
}

function toFrame(input: ExecInput): readonly Uint8Array[] {
  switch (input.kind) {
    case "stdin":
      return hostFrame(FrameKind.STDIN, input.data);
    case "stdin_end":
      return hostFrame(FrameKind.STDIN_END, nothing);
    case "resize": {
      const { rows, columns } = input;
      return hostMessage(FrameKind.RESIZE, TerminalSizeSchema, { rows, columns });
    }
  }
}
