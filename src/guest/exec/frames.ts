// The frames of a bulk stream (FrameKind in guest.proto): one byte of kind, three of length, the payload. The guest is hostile:
// the reader checks a frame's length before it keeps any of it, and passes bulk data on as it arrives.

import { create, type DescMessage, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import {
  ExecStartedSchema,
  ExitStatusSchema,
  FrameKind,
  RefusalSchema,
  StdinTakenSchema,
} from "../../gen/litegix/guest/v1/guest_pb.js";
import { BulkFrameError } from "../errors.ts";

const headerBytes = 4;
/** Payload and header together are what a vsock carries in one piece. */
export const maxPayloadBytes = 64 * 1024 - headerBytes;

/** The limit of standard input that is sent but not yet taken: the guest's connection must always have room for it. */
export const stdinWindowBytes = 128 * 1024;

export type GuestFrame =
  | { readonly kind: "started"; readonly startUs: number }
  | { readonly kind: "taken"; readonly bytes: number }
  | { readonly kind: "stdout" | "stderr"; readonly data: Uint8Array }
  | { readonly kind: "exited"; readonly exitCode: number; readonly signal: number }
  | { readonly kind: "refused"; readonly code: number; readonly message: string };

/** Header and payload, for one write. */
export function hostFrame(kind: FrameKind, payload: Uint8Array): [Uint8Array, Uint8Array] {
  const header = Buffer.allocUnsafe(headerBytes);
  header[0] = kind;
  header.writeUIntBE(payload.length, 1, 3);
  return [header, payload];
}

export function hostMessage<Desc extends DescMessage>(
  kind: FrameKind,
  schema: Desc,
  message: MessageInitShape<Desc>,
): [Uint8Array, Uint8Array] {
  return hostFrame(kind, toBinary(schema, create(schema, message)));
}

/** Reads the guest's frames of an exec session from chunks of any size. */
export class GuestFrameReader {
  /** The incomplete frame: its header, and the payload unless it is bulk data. */
  #held: Uint8Array = Buffer.alloc(0);
  #bulk: "stdout" | "stderr" = "stdout";
  /** Bytes of bulk data still to come in the current frame. */
  #left = 0;

  /** Fails with BulkFrameError or protobuf's error. */
  *read(chunk: Uint8Array): Generator<GuestFrame, void, undefined> {
    let rest = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk]);
    while (rest.length > 0) {
      if (this.#left > 0) {
        const data = rest.subarray(0, this.#left);
        this.#left -= data.length;
        rest = rest.subarray(data.length);
        yield { kind: this.#bulk, data };
        continue;
      }
      if (rest.length < headerBytes) break;
      const kind = rest[0] ?? 0;
      const length = ((rest[1] ?? 0) << 16) | ((rest[2] ?? 0) << 8) | (rest[3] ?? 0);
      if (length > maxPayloadBytes)
        throw new BulkFrameError({ problem: `the guest claims a frame of ${length} bytes` });
      if (kind === FrameKind.STDOUT || kind === FrameKind.STDERR) {
        this.#bulk = kind === FrameKind.STDOUT ? "stdout" : "stderr";
        this.#left = length;
        rest = rest.subarray(headerBytes);
        continue;
      }
      if (rest.length < headerBytes + length) break;
      yield control(kind, rest.subarray(headerBytes, headerBytes + length));
      rest = rest.subarray(headerBytes + length);
    }
    this.#held = rest;
  }
}

function control(kind: number, payload: Uint8Array): GuestFrame {
  switch (kind) {
    case FrameKind.STARTED:
      return { kind: "started", startUs: fromBinary(ExecStartedSchema, payload).startUs };
    case FrameKind.TAKEN:
      return { kind: "taken", bytes: Number(fromBinary(StdinTakenSchema, payload).bytes) };
    case FrameKind.EXITED: {
      const { exitCode, signal } = fromBinary(ExitStatusSchema, payload);
      return { kind: "exited", exitCode, signal };
    }
    case FrameKind.REFUSED: {
      const { code, message } = fromBinary(RefusalSchema, payload);
      return { kind: "refused", code, message };
    }
    default:
      throw new BulkFrameError({ problem: `the guest sent a frame of kind ${kind} in an exec session` });
  }
}
