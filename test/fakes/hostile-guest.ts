// A compromised guest: behind the unix socket of its VM it may answer anything. Each behaviour gets the connection from
// its first byte, and never does the same as an honest guest.
import { randomBytes } from "node:crypto";
import { rm } from "node:fs/promises";
import { createServer, type Socket } from "node:net";

export type Behaviour = (socket: Socket) => void;

/** HTTP/2: 24 bits of length, type, flags, stream. */
export function frame(
  type: number,
  flags: number,
  stream: number,
  payload: Uint8Array,
  claimed = payload.length,
): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(claimed, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

const settings = frame(4, 0, 0, Buffer.alloc(0));
/** ":status: 200" and "content-type: application/grpc", without Huffman or table. */
const answerHeaders = Buffer.concat([Buffer.from([0x88, 0x0f, 0x10, 16]), Buffer.from("application/grpc", "latin1")]);
const answer = (stream: number): Buffer => frame(1, 4, stream, answerHeaders);

/** A gRPC message: a flag, 32 bits of length, the bytes. */
export function message(payload: Uint8Array, claimed = payload.length): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(claimed, 1);
  return Buffer.concat([head, payload]);
}

/** A frame of a bulk stream: a kind (FrameKind), 24 bits of length, the bytes. */
export function bulk(kind: number, payload: Uint8Array = new Uint8Array(), claimed = payload.length): Buffer {
  const head = Buffer.alloc(4);
  head[0] = kind;
  head.writeUIntBE(claimed, 1, 3);
  return Buffer.concat([head, payload]);
}

function accepted(then: Behaviour): Behaviour {
  return (socket) =>
    socket.once("data", () => {
      socket.write("OK 1073741824\n");
      then(socket);
    });
}

/** Sends the bytes again and again, as fast as the peer takes them. */
function flood(make: () => Buffer): Behaviour {
  return (socket) => {
    const more = (): void => {
      while (!socket.destroyed && socket.write(make()));
    };
    socket.on("drain", more);
    more();
  };
}

/** Calls begin on streams 1, 3, 5...; this answers the first. */
const call = (...frames: Buffer[]): Behaviour =>
  accepted((socket) => {
    socket.once("data", () => socket.write(Buffer.concat([settings, answer(1), ...frames])));
  });

const garbage = randomBytes(64 << 10);

export const behaviours: ReadonlyMap<string, Behaviour> = new Map<string, Behaviour>([
  ["closes at once", (socket) => socket.destroy()],
  ["says nothing", () => {}],
  ["never reads", (socket) => socket.pause()],
  ["answers CONNECT with garbage", (socket) => socket.write(garbage)],
  ["answers CONNECT with an endless line", flood(() => Buffer.alloc(4096, "1"))],
  ["closes after OK", accepted((socket) => socket.destroy())],
  ["says nothing after OK", accepted(() => {})],
  ["never reads after OK", accepted((socket) => socket.pause())],
  ["sends garbage after OK", accepted((socket) => socket.write(garbage))],
  ["floods garbage after OK", accepted(flood(() => garbage))],
  ["floods settings", accepted(flood(() => Buffer.concat(Array.from({ length: 500 }, () => settings))))],
  [
    "floods pings",
    accepted(
      flood(() => Buffer.concat([settings, ...Array.from({ length: 500 }, () => frame(6, 0, 0, Buffer.alloc(8)))])),
    ),
  ],
  [
    "floods empty data frames",
    accepted(
      flood(() =>
        Buffer.concat([settings, answer(1), ...Array.from({ length: 500 }, () => frame(0, 0, 1, Buffer.alloc(0)))]),
      ),
    ),
  ],
  [
    "floods window updates",
    accepted(
      flood(() =>
        Buffer.concat([
          settings,
          ...Array.from({ length: 500 }, () => frame(8, 0, 0, Buffer.from([0x7f, 0xff, 0xff, 0xff]))),
        ]),
      ),
    ),
  ],
  [
    "never ends its headers",
    accepted((socket) => {
      socket.write(Buffer.concat([settings, frame(1, 0, 1, answerHeaders)]));
      flood(() => frame(9, 0, 1, Buffer.alloc(16_000, 0x88)))(socket);
    }),
  ],
  [
    "claims a frame of 16 MiB",
    accepted((socket) => socket.write(Buffer.concat([settings, frame(0, 0, 1, garbage, 0xff_ff_ff)]))),
  ],
  ["claims a message of 4 GiB", call(frame(0, 0, 1, message(Buffer.alloc(100), 0xff_ff_ff_ff)))],
  ["sends a message that is not protobuf", call(frame(0, 0, 1, message(Buffer.alloc(1000, 0xff))))],
  [
    "claims a string of 4 GiB inside a message",
    call(frame(0, 0, 1, message(Buffer.from([0x12, 0xff, 0xff, 0xff, 0xff, 0x0f, 1])))),
  ],
  ["nests groups without end", call(frame(0, 0, 1, message(Buffer.alloc(10_000, 0x0b))))],
  [
    "sends a compressed message",
    call(frame(0, 0, 1, Buffer.concat([Buffer.from([1]), message(Buffer.alloc(10)).subarray(1)]))),
  ],
  ["resets the call", call(frame(3, 0, 1, Buffer.from([0, 0, 0, 2])))],
  ["goes away", call(frame(7, 0, 0, Buffer.alloc(8)))],
  [
    "floods empty frames of a session",
    accepted(flood(() => Buffer.concat(Array.from({ length: 500 }, () => bulk(17))))),
  ],
  ["floods empty frames of a log", accepted(flood(() => Buffer.concat(Array.from({ length: 500 }, () => bulk(20)))))],
  ["claims a session's frame of 16 MiB", accepted((socket) => socket.write(bulk(17, garbage, 0xff_ff_ff)))],
  ["claims a log's frame of 16 MiB", accepted((socket) => socket.write(bulk(20, garbage, 0xff_ff_ff)))],
  ["never ends its refusal", accepted((socket) => socket.write(bulk(22, garbage.subarray(0, 1000), 2000)))],
  ["refuses with garbage", accepted((socket) => socket.write(bulk(22, garbage.subarray(0, 1000))))],
  ["ends the call without a status", call(frame(0, 1, 1, Buffer.alloc(0)))],
]);

export class HostileGuest implements AsyncDisposable {
  readonly #socketPath: string;
  readonly #sockets = new Set<Socket>();
  readonly #server = createServer((socket) => {
    this.#sockets.add(socket);
    this.connections += 1;
    socket.on("error", () => {});
    socket.once("close", () => this.#sockets.delete(socket));
    this.#behaviour(socket);
    // Discards data without a listener, unless the behaviour is not to read.
    if (!socket.isPaused()) socket.on("data", () => {});
  });
  readonly #behaviour: Behaviour;
  connections = 0;

  private constructor(socketPath: string, behaviour: Behaviour) {
    this.#socketPath = socketPath;
    this.#behaviour = behaviour;
  }

  static async start(options: { socketPath: string; behaviour: Behaviour }): Promise<HostileGuest> {
    const guest = new HostileGuest(options.socketPath, options.behaviour);
    await new Promise<void>((resolve) => guest.#server.listen(options.socketPath, resolve));
    return guest;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
    await rm(this.#socketPath, { force: true });
  }
}
