// One GET to a registry. It follows redirects by hand, so that credentials never reach another host (blob stores reject
// them, and must not see them). It has a deadline until the headers are there, and a few retries for transient
// failures.
import { request as httpRequest, type IncomingMessage } from "node:http";
import { request as httpsRequest } from "node:https";
import { setTimeout as sleep } from "node:timers/promises";
import { DriverError } from "../../system/error.ts";
import { RegistryRequestError } from "../errors.ts";
import { cureFor, describeNetworkError, isTransient, networkCode } from "./problem.ts";
import type { RegistryPolicy } from "./registry-policy.ts";

export interface GetOptions {
  readonly url: string;
  readonly place: string;
  readonly policy: RegistryPolicy;
  /** Default: GET. */
  readonly method?: "GET" | "HEAD" | undefined;
  readonly accept?: string | undefined;
  readonly authorization?: string | undefined;
  readonly signal: AbortSignal;
}

/** An answer's head; `bodyOf` reads the rest, or `discard` closes the connection. */
export interface RegistryResponse {
  readonly status: number;
  readonly url: URL;
  readonly header: (name: string) => string | undefined;
  readonly body: IncomingMessage;
}

const maxRedirects = 5;
const maxAttempts = 3;
const firstPauseMs = 250;
const maxPauseMs = 5_000;
const headersTimeoutMs = 30_000;
/** A longer silence in the middle of a body ends the attempt. */
const stallTimeoutMs = 60_000;
const redirectStatuses = new Set([301, 302, 303, 307, 308]);
const retriedStatuses = new Set([429, 500, 502, 503, 504]);

/**
 * The first answer that is not a redirect. Fails with RegistryRequestError or RegistryAddressError, or with the signal's
 * reason.
 */
export async function get(options: GetOptions): Promise<RegistryResponse> {
  for (let attempt = 1; ; attempt++) {
    try {
      const response = await getOnce(options);
      if (!retriedStatuses.has(response.status) || attempt === maxAttempts) return response;
      discard(response);
      await pause(attempt, retryAfterMs(response), options.signal);
    } catch (cause) {
      options.signal.throwIfAborted();
      if (cause instanceof DriverError) throw cause;
      if (!isTransient(cause) || attempt === maxAttempts) {
        throw networkFailure({ place: options.place, cause, brokeOff: false });
      }
      await pause(attempt, 0, options.signal);
    }
  }
}

function networkFailure(facts: {
  readonly place: string;
  readonly cause: unknown;
  readonly brokeOff: boolean;
}): RegistryRequestError {
  const cure = cureFor({ code: networkCode(facts.cause), hasCredentials: false });
  return new RegistryRequestError({ ...facts, problem: describeNetworkError(facts.cause), cure });
}

/** For an answer whose body nobody reads. */
export function discard(response: RegistryResponse): void {
  response.body.on("error", () => undefined);
  response.body.destroy();
}

async function getOnce(options: GetOptions): Promise<RegistryResponse> {
  let url = new URL(options.url);
  let authorization = options.authorization;
  for (let hops = 0; hops <= maxRedirects; hops++) {
    const response = await headersOf(url, authorization, options);
    const location = redirectStatuses.has(response.status) ? response.header("location") : undefined;
    if (location === undefined) return response;
    discard(response);
    const next = redirectTarget(location, url, options);
    if (next.origin !== url.origin) authorization = undefined;
    url = next;
  }
  throw new RegistryRequestError({ place: options.place, problem: `more than ${maxRedirects} redirects` });
}

function redirectTarget(location: string, from: URL, { place, policy }: GetOptions): URL {
  const next = URL.canParse(location, from) ? new URL(location, from) : undefined;
  const isPlain = next?.protocol === "http:" && policy.mayFollowInPlain(from, next);
  if (next === undefined || !(next.protocol === "https:" || isPlain)) {
    throw new RegistryRequestError({ place, problem: "redirected to an address that is malformed or not secure" });
  }
  return next;
}

async function headersOf(url: URL, authorization: string | undefined, options: GetOptions): Promise<RegistryResponse> {
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(), headersTimeoutMs);
  try {
    return await send({
      url,
      policy: options.policy,
      place: options.place,
      method: options.method ?? "GET",
      signal: AbortSignal.any([options.signal, late.signal]),
      headers: {
        // A compressed answer would not have the digest of its content.
        "accept-encoding": "identity",
        "user-agent": "litegix-fc-driver",
        ...(options.accept === undefined ? {} : { accept: options.accept }),
        ...(authorization === undefined ? {} : { authorization }),
      },
    });
  } catch (cause) {
    if (late.signal.aborted && !options.signal.aborted) {
      throw new RegistryRequestError({
        place: options.place,
        problem: `no answer within ${headersTimeoutMs / 1000} s`,
        cause,
      });
    }
    throw cause;
  } finally {
    clearTimeout(timer);
  }
}

/** The signal ends the body's transfer too. */
async function send(options: {
  readonly url: URL;
  readonly policy: RegistryPolicy;
  readonly place: string;
  readonly method: string;
  readonly signal: AbortSignal;
  readonly headers: Readonly<Record<string, string>>;
}): Promise<RegistryResponse> {
  const { url, policy, place, method, signal, headers } = options;
  const connection = policy.connection(url, place);
  const request = url.protocol === "https:" ? httpsRequest : httpRequest;
  return await new Promise((resolve, reject) => {
    const sent = request(url, { ...connection, method, signal, headers: { ...headers } });
    sent.once("error", reject);
    sent.once("response", (body) => {
      // Later errors come out of the body, which `bodyOf` reads.
      sent.on("error", () => undefined);
      const header = (name: string): string | undefined => body.headers[name]?.toString();
      resolve({ status: body.statusCode ?? 0, url, header, body });
    });
    sent.end();
  });
}

/** The body's bytes; a long silence or a broken connection is a RegistryRequestError. */
export async function* bodyOf(options: {
  readonly response: RegistryResponse;
  readonly place: string;
  readonly signal: AbortSignal;
}): AsyncGenerator<Uint8Array> {
  const { response, place, signal } = options;
  const stalled = new RegistryRequestError({ place, problem: `sent nothing for ${stallTimeoutMs / 1000} s` });
  const timer = setTimeout(() => response.body.destroy(stalled), stallTimeoutMs);
  try {
    for await (const chunk of response.body as AsyncIterable<Buffer>) {
      yield chunk;
      timer.refresh();
    }
  } catch (cause) {
    signal.throwIfAborted();
    if (cause === stalled) throw stalled;
    throw networkFailure({ place, cause, brokeOff: isTransient(cause) });
  } finally {
    clearTimeout(timer);
    response.body.destroy();
  }
}

/** Fails with RegistryRequestError if the body is larger: a registry must not fill the memory. */
export async function smallBodyOf(
  options: Parameters<typeof bodyOf>[0] & { readonly maxBytes: number },
): Promise<Buffer> {
  const { maxBytes, place } = options;
  const chunks: Uint8Array[] = [];
  let sizeBytes = 0;
  for await (const chunk of bodyOf(options)) {
    sizeBytes += chunk.length;
    if (sizeBytes > maxBytes) {
      throw new RegistryRequestError({ place, problem: `answered with more than ${maxBytes} bytes` });
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

async function pause(attempt: number, askedMs: number, signal: AbortSignal): Promise<void> {
  const backoffMs = firstPauseMs * 4 ** (attempt - 1) * (0.75 + Math.random() / 2);
  await sleep(Math.min(maxPauseMs, Math.max(backoffMs, askedMs)), undefined, { signal });
}

function retryAfterMs(response: RegistryResponse): number {
  const seconds = Number(response.header("retry-after") ?? 0);
  return Number.isFinite(seconds) && seconds > 0 ? seconds * 1000 : 0;
}
