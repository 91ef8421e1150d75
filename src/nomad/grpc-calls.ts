// Answers to gRPC calls: connect's router under an HTTP/2 adapter of our own. connect's adapter prints failures with
// console.error, where go-plugin's host expects log lines, and answers unknown methods with a bare 404.
import { ConnectError, type ConnectRouter, createConnectRouter } from "@connectrpc/connect";
import type { UniversalHandler } from "@connectrpc/connect/protocol";
import { setTrailerStatus } from "@connectrpc/connect/protocol-grpc";
import { universalRequestFromNodeRequest, universalResponseToNodeResponse } from "@connectrpc/connect-node";
import type { Logger } from "../system/logger.ts";
import { drained } from "../system/streams.ts";
import type { AnswerCall, GrpcRequest, GrpcResponse } from "./grpc-server.ts";

/** A call handled as bytes: incoming bytes, cut anywhere, become whole messages with gRPC's prefix. */
export type RawStream = (chunks: AsyncIterable<Uint8Array>, signal: AbortSignal) => AsyncIterable<Uint8Array>;

export interface GrpcCallsOptions {
  readonly routes: (router: ConnectRouter) => void;
  /** Calls beside the routes, keyed by the method's path. */
  readonly rawStreams?: ReadonlyMap<string, RawStream>;
  readonly logger: Logger;
  /** Called once the answer to a request has been sent, with the method's path. */
  readonly onAnswered?: (path: string) => void;
}

const unimplemented = "12";

type Request = Parameters<typeof universalRequestFromNodeRequest>[0];
type Response = Parameters<typeof universalResponseToNodeResponse>[1];

export function answerCalls(options: GrpcCallsOptions): AnswerCall {
  const router = createConnectRouter({ acceptCompression: [], connect: false, grpcWeb: false });
  options.routes(router);
  const handlers = new Map(router.handlers.map((handler) => [handler.requestPath, handler]));
  return (request, response) => handle({ request, response, handlers, options });
}

async function handle(call: {
  request: GrpcRequest;
  response: GrpcResponse;
  handlers: ReadonlyMap<string, UniversalHandler>;
  options: GrpcCallsOptions;
}): Promise<void> {
  const { request, response, options } = call;
  const path = request.url.split("?", 1)[0] ?? "";
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
    // The host routinely cancels its streams.
    if (!request.aborted) options.logger.debug("a call ended early", { path, error });
  }
}

async function handleRaw(call: { request: GrpcRequest; response: GrpcResponse; rawStream: RawStream }): Promise<void> {
  const { request, response } = call;
  const cancelled = new AbortController();
  const cancel = (): void => cancelled.abort(new Error("the call was cancelled"));
  response.once("close", cancel);
  response.writeHead(200, { "content-type": "application/grpc" });
  let failure: ConnectError | undefined;
  try {
    for await (const bytes of call.rawStream(request as AsyncIterable<Uint8Array>, cancelled.signal)) {
      if (!response.write(bytes)) await drained(response.stream);
      if (cancelled.signal.aborted) return;
    }
  } catch (error) {
    failure = ConnectError.from(error);
  }
  if (cancelled.signal.aborted) return;
  response.addTrailers(Object.fromEntries(setTrailerStatus(new Headers(), failure)));
  response.end();
  // Further input has no effect, but unread it would hold the stream open.
  request.resume();
}
