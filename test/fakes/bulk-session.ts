// The guest's side of an exec session: collects the host's frames and answers them.
import type { Socket } from "node:net";
import type { FrameKind } from "../../src/gen/litegix/guest/v1/guest_pb.js";
import { hostFrame } from "../../src/guest/exec/frames.ts";

export type Answer = (kind: FrameKind, payload?: Uint8Array) => void;

/** For FakeGuest's `bulk`: calls `onFrame` with each whole frame that the host sends. */
export function bulkSession(
  onFrame: (frame: { kind: FrameKind; payload: Uint8Array; answer: Answer; socket: Socket }) => void,
): (socket: Socket) => void {
  return (socket) => {
    const answer: Answer = (kind, payload = new Uint8Array()) => {
      for (const part of hostFrame(kind, payload)) socket.write(part);
    };
    let bytes = Buffer.alloc(0);
    socket.on("data", (chunk: Buffer) => {
      bytes = Buffer.concat([bytes, chunk]);
      while (bytes.length >= 4 && bytes.length >= 4 + bytes.readUIntBE(1, 3)) {
        const payload = bytes.subarray(4, 4 + bytes.readUIntBE(1, 3));
        const kind: FrameKind = bytes[0] ?? 0;
        bytes = bytes.subarray(4 + payload.length);
        onFrame({ kind, payload, answer, socket });
      }
    });
  };
}
