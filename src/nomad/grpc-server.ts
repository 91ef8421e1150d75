// A gRPC server on a unix socket: connect's router under an HTTP/2 adapter of our own. connect's adapter prints failures with
// console.error, where go-plugin's host expects log lines, and answers unknown methods with a bare 404.
import * as http2 from "node:http2";
import { ConnectError, type ConnectRouter, createConnectRouter } from "@connectrpc/connect";
import type { UniversalHandler } from "@connectrpc/connect/protocol";
import { setTrailerStatus } from "@connectrpc/connect/protocol-grpc";
import { universalRequestFromNodeRequest, universalResponseToNodeResponse } from "@connectrpc/connect-node";
import type { Logger } from "../system/logger.ts";

/** A call whose messages are handled as bytes: what came in, in any pieces, to whole messages with gRPC's prefix. */
export type RawStream = (chunks: AsyncIterable<Uint8Array>, signal: AbortSignal) => AsyncIterable<Uint8Array>;

export interface GrpcServerOptions {
  readonly socketPath: string;
  readonly tls: http2.SecureServerOptions | undefined;
  readonly routes: (router: ConnectRouter) => void;
  /** Calls beside the routes, by the method's path. */
  readonly rawStreams?: ReadonlyMap<string, RawStream>;
  readonly logger: Logger;
  /** Called when the answer to a request has been sent, with the method's path. */
  readonly onAnswered?: (path: string) => void;
  /** Called when the number of connections changes. */
  readonly onSessions?: (count: number) => void;
}

const windowBytes = 1 << 20;
/** Many streams with large windows would otherwise meet ENHANCE_YOUR_CALM. */
const maxSessionMemoryMb = 64;
const unimplemented = "12";

type Request = Parameters<typeof universalRequestFromNodeRequest>[0];
type Response = Parameters<typeof universalResponseToNodeResponse>[1];

/** Resolves when the socket accepts connections. */
export async function startGrpcServer(options: GrpcServerOptions): Promise<http2.Http2Server> {
  const router = createConnectRouter({ acceptCompression: [], connect: false, grpcWeb: false });
  options.routes(router);
  const handlers = new Map(router.handlers.map((handler) => [handler.requestPath, handler]));
  const settings = { settings: { initialWindowSize: windowBytes }, maxSessionMemory: maxSessionMemoryMb };
  const server =
    options.tls === undefined
      ? http2.createServer(settings)
      : http2.createSecureServer({ ...settings, ...options.tls, allowHTTP1: false });
  let sessions = 0;
  server.on("session", (session) => {
    options.onSessions?.(++sessions);
    session.setLocalWindowSize(windowBytes * 4);
    session.on("error", (error) => options.logger.debug("a connection broke", { error }));
    session.once("close", () => options.onSessions?.(--sessions));
  });
  server.on("request", (request, response) => {
    void handle({ request, response, handlers, options });
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(options.socketPath, resolve);
  });
  server.on("error", (error) => options.logger.error("the plugin's listener failed", { error }));
  return server;
}

async function handle(call: {
  request: http2.Http2ServerRequest;
  response: http2.Http2ServerResponse;
  handlers: ReadonlyMap<string, UniversalHandler>;
  options: GrpcServerOptions;
}): Promise<void> {
  const { request, response, options } = call;
  const path = request.url.split("?", 1)[0] ?? "";
  // A cancelled stream also shows as an error event; nobody waits for it.
  request.on("error", () => {});
  response.on("error", () => {});
  const rawStream = options.rawStreams?.get(path);
  if (rawStream !== undefined) {
    await handleRaw({ request, response, rawStream });
    return;
  }
  const handler = call.handlers.get(path);
  if (handler === undefined) {
    response.writeHead(200, {
      "content-type": "application/grpc",
      "grpc-status": unimplemented,
      "grpc-message": `unknown method ${path.replaceAll(/[^\w./]/g, "?")}`,
    });
    response.end();
    return;
  }
  try {
    response.once("finish", () => options.onAnswered?.(path));
    const universal = universalRequestFromNodeRequest(request as Request, response as Response, undefined, undefined);
    await universalResponseToNodeResponse(await handler(universal), response as Response);
  } catch (error) {
    // The host cancels its streams as a matter of course.
    if (!request.aborted) options.logger.debug("a call ended early", { path, error });
  }
}

async function handleRaw(call: {
  request: http2.Http2ServerRequest;
  response: http2.Http2ServerResponse;
  rawStream: RawStream;
}): Promise<void> {
  const { request, response } = call;
  const cancelled = new AbortController();
  const cancel = (): void => cancelled.abort(new Error("the call was cancelled"));
  response.once("close", cancel);
  response.writeHead(200, { "content-type": "application/grpc" });
  let failure: ConnectError | undefined;
  try {
    for await (const bytes of call.rawStream(request as AsyncIterable<Uint8Array>, cancelled.signal)) {
      if (!response.write(bytes)) await drained(response, cancelled.signal);
      if (cancelled.signal.aborted) return;
    }
  } catch (error) {
    failure = ConnectError.from(error);
  }
  if (cancelled.signal.aborted) return;
  response.addTrailers(Object.fromEntries(setTrailerStatus(new Headers(), failure)));
  response.end();
  // What the host still sends means nothing any more; unread it would hold the stream open.
  request.resume();
}

function drained(response: http2.Http2ServerResponse, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const go = (): void => {
      response.off("drain", go);
      signal.removeEventListener("abort", go);
      resolve();
    };
    response.on("drain", go);
    signal.addEventListener("abort", go);
    if (signal.aborted) go();
  });
}
