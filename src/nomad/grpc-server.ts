// HTTP/2 on a unix socket, for gRPC. It listens before the services behind it are loaded. Their code takes as long to
// load as the rest of a start, and meanwhile the host learns the socket's path and connects.
import * as http2 from "node:http2";
import type { Logger } from "../system/logger.ts";

export type GrpcRequest = http2.Http2ServerRequest;
export type GrpcResponse = http2.Http2ServerResponse;

/** Never rejects. */
export type AnswerCall = (request: GrpcRequest, response: GrpcResponse) => Promise<void>;

export interface GrpcServerOptions {
  readonly socketPath: string;
  readonly logger: Logger;
  /** Calls wait for it; it never rejects. */
  readonly answer: Promise<AnswerCall>;
  /** Called when the number of connections changes. */
  readonly onSessions?: (count: number) => void;
}

const windowBytes = 1 << 20;
/** Many streams with large windows would otherwise meet ENHANCE_YOUR_CALM. */
const maxSessionMemoryMb = 64;

/** Resolves when the socket accepts connections. */
export async function startGrpcServer(options: GrpcServerOptions): Promise<http2.Http2Server> {
  const server = http2.createServer({
    settings: { initialWindowSize: windowBytes },
    maxSessionMemory: maxSessionMemoryMb,
  });
  let sessions = 0;
  server.on("session", (session) => {
    options.onSessions?.(++sessions);
    session.setLocalWindowSize(windowBytes * 4);
    session.on("error", (error) => options.logger.debug("a connection broke", { error }));
    session.once("close", () => options.onSessions?.(--sessions));
  });
  server.on("request", (request, response) => {
    // A cancelled stream also emits an error event, which has no other listener.
    request.on("error", () => {});
    response.on("error", () => {});
    void options.answer.then((answer) => answer(request, response));
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(options.socketPath, resolve);
  });
  server.on("error", (error) => options.logger.error("the plugin's listener failed", { error }));
  return server;
}
