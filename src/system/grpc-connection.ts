// A gRPC client over a connection that the caller knows how to open (a unix socket, or one with a handshake in front).
// connect's own session manager can only open sockets synchronously; this one keeps a single HTTP/2 session, opened when
// first needed and opened again after it broke.
import * as http2 from "node:http2";
import type { Duplex } from "node:stream";
import type { Transport } from "@connectrpc/connect";
import { createGrpcTransport, type GrpcTransportOptions } from "@connectrpc/connect-node";

type SessionManager = NonNullable<GrpcTransportOptions["sessionManager"]>;

export interface GrpcConnectionOptions {
  /** `signal` aborts when the connection is disposed of before it is there. */
  readonly open: (signal: AbortSignal) => Promise<Duplex>;
  /** Bytes a peer may send in one message. */
  readonly maxMessageBytes: number;
}

const windowBytes = 1 << 20;
/** A whole chunk of bulk data in one frame, which is cheaper for the peer to send. */
const maxFrameBytes = 128 * 1024;
const maxSessionMemoryMb = 32;

export class GrpcConnection implements Disposable {
  readonly transport: Transport;
  readonly #options: GrpcConnectionOptions;
  #session: Promise<http2.ClientHttp2Session> | undefined;
  readonly #disposed = new AbortController();

  constructor(options: GrpcConnectionOptions) {
    this.#options = options;
    const sessionManager: SessionManager = {
      // tonic refuses malformed authorities; the name itself means nothing.
      authority: "http://guest",
      request: async (method, path, headers, requestOptions) => {
        const session = await this.#currentSession();
        return session.request({ ...headers, ":method": method, ":path": path }, requestOptions);
      },
      notifyResponseByteRead: () => {},
    };
    this.transport = createGrpcTransport({
      baseUrl: "http://guest",
      sessionManager,
      acceptCompression: [],
      readMaxBytes: options.maxMessageBytes,
    });
  }

  /** Ends the connection and every call on it. */
  [Symbol.dispose](): void {
    this.#disposed.abort(new Error("the connection has been closed"));
    this.#session?.then(
      (session) => session.destroy(),
      () => {},
    );
    this.#session = undefined;
  }

  #currentSession(): Promise<http2.ClientHttp2Session> {
    if (this.#disposed.signal.aborted) return Promise.reject(this.#disposed.signal.reason as Error);
    this.#session ??= this.#openSession();
    return this.#session;
  }

  async #openSession(): Promise<http2.ClientHttp2Session> {
    const forget = (): void => {
      this.#session = undefined;
    };
    let socket: Duplex;
    try {
      socket = await this.#options.open(this.#disposed.signal);
    } catch (error) {
      forget();
      throw error;
    }
    if (this.#disposed.signal.aborted) {
      socket.destroy();
      throw this.#disposed.signal.reason;
    }
    const session = http2.connect("http://guest", {
      createConnection: () => socket,
      maxSessionMemory: maxSessionMemoryMb,
      settings: { initialWindowSize: windowBytes, maxFrameSize: maxFrameBytes, enablePush: false },
    });
    session.on("connect", () => {
      // Emitted even for a session that was destroyed before.
      if (!session.destroyed) session.setLocalWindowSize(windowBytes * 4);
    });
    session.on("close", forget);
    session.on("goaway", forget);
    // Streams report it to their callers; an unhandled event would end the process.
    session.on("error", () => {});
    socket.on("close", () => session.destroy());
    return session;
  }
}
