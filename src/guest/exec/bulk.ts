// An exec session over a bulk stream: frames with a header of four bytes, in both directions. The socket itself gives back
// pressure. At the task's end the guest goes soon, so the driver fetches the last output even if the client is slow.
import type { Socket } from "node:net";
import { ConnectError } from "@connectrpc/connect";
import { ExecStartSchema, FrameKind, TerminalSizeSchema } from "../../gen/litegix/guest/v1/guest_pb.js";
import { drained } from "../../system/streams.ts";
import { guestError } from "../guest-error.ts";
import { type GuestFrame, GuestFrameReader, hostFrame, hostMessage, stdinWindowBytes } from "./frames.ts";
import type { ExecInput, ExecInputQueue } from "./input.ts";
import { readAhead } from "./read-ahead.ts";

/** Twice what a program can leave in its pipes (1 MiB each) and in transit. */
const maxUnreadBytes = 4 << 20;
const nothing = new Uint8Array();

/**
 * Fails with guestError's translation of a refusal, or with the error of the socket or the frame reader. Aborting `signal` ends
 * the session and its program. The socket is destroyed at the end.
 */
export async function* execByBulk(options: {
  socket: Socket;
  argv: readonly string[];
  terminal: boolean;
  killAtOnce?: boolean;
  input: ExecInputQueue;
  /** Aborts when the task has ended. */
  ending: AbortSignal;
  /** Called when the guest sends no more, even if the caller has not taken everything yet. */
  onDrained: () => void;
  signal: AbortSignal;
}): AsyncGenerator<Exclude<GuestFrame, { kind: "refused" }>, void, undefined> {
  const { socket, signal } = options;
  const end = (): void => void socket.destroy();
  // Reading reports the error; an unhandled event would end the process.
  socket.on("error", () => {});
  signal.addEventListener("abort", end, { once: true });
  try {
    signal.throwIfAborted();
    const { argv, terminal, killAtOnce = false } = options;
    send(socket, hostMessage(FrameKind.EXEC, ExecStartSchema, { argv: [...argv], terminal, killAtOnce }));
    const window = new StdinWindow();
    socket.once("close", () => {
      window.open(Number.POSITIVE_INFINITY);
      options.onDrained();
    });
    void sendInput(socket, options.input, window);
    const frames = new GuestFrameReader();
    const parse = function* (chunk: Uint8Array): Generator<GuestFrame> {
      for (const frame of frames.read(chunk)) {
        yield frame;
        if (frame.kind === "exited") options.onDrained();
      }
    };
    for await (const frame of readAhead({ socket, parse, ending: options.ending, maxBytes: maxUnreadBytes })) {
      if (frame.kind === "refused") throw guestError(new ConnectError(frame.message, frame.code));
      if (frame.kind === "taken") window.open(frame.bytes);
      yield frame;
    }
  } finally {
    signal.removeEventListener("abort", end);
    socket.destroy();
  }
}

/** False if the socket's buffer is full: wait for `drained`. */
function send(socket: Socket, parts: readonly Uint8Array[]): boolean {
  socket.cork();
  for (const part of parts) if (part.length > 0) socket.write(part);
  socket.uncork();
  return !socket.writableNeedDrain;
}

class StdinWindow {
  #sent = 0;
  #taken = 0;
  #wake: (() => void) | undefined;

  /** `taken` counts the bytes that the guest has taken since the session began. */
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
    // The guest opens the window, and a hostile guest may claim anything: the socket's own limit bounds the bytes held for it.
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
