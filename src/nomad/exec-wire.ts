// ExecTaskStreaming's messages in gRPC's and protobuf's wire format (nomad/plugins/drivers/proto/driver.proto). Clients
// send standard input in pieces of 2 KiB. In the library, each would pass through all layers as a message of its own,
// which would limit the throughput. Here one read takes all that has arrived, and makes one piece of it.
import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { BinaryReader, BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { Code, ConnectError } from "@connectrpc/connect";
import {
  ExecTaskStreamingRequest_SetupSchema,
  ExecTaskStreamingRequest_TerminalSizeSchema,
  ExecTaskStreamingResponseSchema,
} from "../gen/nomad/drivers/driver_pb.js";
import type { ExecInput } from "../guest/exec/input.ts";

export type ExecMessage =
  | { readonly kind: "setup"; readonly taskId: string; readonly command: readonly string[]; readonly terminal: boolean }
  | ExecInput;

export type ExecAnswer = MessageInitShape<typeof ExecTaskStreamingResponseSchema>;

/** A flag for compression, then the length. */
const prefixBytes = 5;
/** gRPC's own default. */
const maxMessageBytes = 4 << 20;
const field = { setup: 1, ttySize: 2, stdin: 3 } as const;
const outputField = { stdout: 1, stderr: 2 } as const;
const operationField = { data: 1, close: 2 } as const;

/** Fails with ConnectError on bytes that are not such a message. */
export async function* execMessages(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<ExecMessage, void, undefined> {
  let held: Uint8Array = Buffer.alloc(0);
  for await (const chunk of chunks) {
    let rest = held.length === 0 ? chunk : Buffer.concat([held, chunk]);
    const found = new Found();
    while (rest.length >= prefixBytes) {
      const length = Buffer.from(rest.buffer, rest.byteOffset, rest.length).readUInt32BE(1);
      if (rest[0] !== 0) throw new ConnectError("a compressed message, which was not agreed on", Code.Internal);
      if (length > maxMessageBytes) throw new ConnectError(`a message of ${length} bytes`, Code.ResourceExhausted);
      if (rest.length < prefixBytes + length) break;
      readRequest(rest.subarray(prefixBytes, prefixBytes + length), found);
      rest = rest.subarray(prefixBytes + length);
    }
    held = rest;
    yield* found.messages();
  }
}

/** The messages of one read. */
class Found {
  readonly #messages: ExecMessage[] = [];
  #stdin: Uint8Array[] = [];

  addStdin(data: Uint8Array): void {
    if (data.length > 0) this.#stdin.push(data);
  }

  add(message: ExecMessage): void {
    this.#join();
    this.#messages.push(message);
  }

  messages(): readonly ExecMessage[] {
    this.#join();
    return this.#messages;
  }

  #join(): void {
    const [only] = this.#stdin;
    if (only === undefined) return;
    this.#messages.push({ kind: "stdin", data: this.#stdin.length === 1 ? only : Buffer.concat(this.#stdin) });
    this.#stdin = [];
  }
}

function readRequest(bytes: Uint8Array, found: Found): void {
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    const [number, wireType] = reader.tag();
    if (number === field.stdin) {
      readOperation(reader.bytes(), found);
    } else if (number === field.setup) {
      const { taskId, command, tty } = fromBinary(ExecTaskStreamingRequest_SetupSchema, reader.bytes());
      found.add({ kind: "setup", taskId, command, terminal: tty });
    } else if (number === field.ttySize) {
      const { height, width } = fromBinary(ExecTaskStreamingRequest_TerminalSizeSchema, reader.bytes());
      if (height > 0 && width > 0) found.add({ kind: "resize", rows: height, columns: width });
    } else {
      reader.skip(wireType, number);
    }
  }
}

function readOperation(bytes: Uint8Array, found: Found): void {
  const reader = new BinaryReader(bytes);
  let close = false;
  while (reader.pos < reader.len) {
    const [number, wireType] = reader.tag();
    if (number === operationField.data) found.addStdin(reader.bytes());
    else if (number === operationField.close) close = reader.bool();
    else reader.skip(wireType, number);
  }
  if (close) found.add({ kind: "stdin_end" });
}

/** The answer as gRPC sends it. */
export function encodeAnswer(answer: ExecAnswer): Uint8Array {
  if (answer.stdout?.data !== undefined) return encodeOutput(outputField.stdout, answer.stdout.data);
  if (answer.stderr?.data !== undefined) return encodeOutput(outputField.stderr, answer.stderr.data);
  const message = toBinary(ExecTaskStreamingResponseSchema, create(ExecTaskStreamingResponseSchema, answer));
  const bytes = Buffer.allocUnsafe(prefixBytes + message.length);
  writePrefix(bytes, message.length);
  bytes.set(message, prefixBytes);
  return bytes;
}

/** By hand, for bulk data: the library would copy it three times, and each copy also loads the garbage collector. */
function encodeOutput(fieldNumber: number, data: Uint8Array): Uint8Array {
  const operation = lengthDelimited(operationField.data, data.length);
  const message = lengthDelimited(fieldNumber, operation.length + data.length);
  const headBytes = prefixBytes + message.length + operation.length;
  const bytes = Buffer.allocUnsafe(headBytes + data.length);
  writePrefix(bytes, bytes.length - prefixBytes);
  bytes.set(message, prefixBytes);
  bytes.set(operation, prefixBytes + message.length);
  bytes.set(data, headBytes);
  return bytes;
}

function writePrefix(bytes: Buffer, length: number): void {
  bytes[0] = 0;
  bytes.writeUInt32BE(length, 1);
}

/** A field's tag and length. */
function lengthDelimited(fieldNumber: number, length: number): Uint8Array {
  return new BinaryWriter().tag(fieldNumber, WireType.LengthDelimited).uint32(length).finish();
}
