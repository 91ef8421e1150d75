// One GET to a registry. It follows redirects by hand, so that credentials never reach another host (blob stores reject
// them, and must not see them). It has a deadline until the headers are there, and a few retries for transient
// failures.
import { setTimeout as sleep } from "node:timers/promises";
import { RegistryRequestError } from "../errors.ts";
import { cureFor, describeNetworkError, isTransient, networkCode } from "./problem.ts";

export interface GetOptions {
  readonly url: string;
  readonly place: string;
  readonly accept?: string | undefined;
  readonly authorization?: string | undefined;
  readonly signal: AbortSignal;
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

/** The first answer that is not a redirect. Fails with RegistryRequestError, or with the signal's reason. */
export async function get(options: GetOptions): Promise<Response> {
  for (let attempt = 1; ; attempt++) {
    try {
      const response = await getOnce(options);
      if (!retriedStatuses.has(response.status) || attempt === maxAttempts) return response;
      await response.body?.cancel();
      await pause(attempt, retryAfterMs(response), options.signal);
    } catch (cause) {
      options.signal.throwIfAborted();
      if (cause instanceof RegistryRequestError) throw cause;
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

async function getOnce(options: GetOptions): Promise<Response> {
  let url = new URL(options.url);
  let authorization = options.authorization;
  for (let hops = 0; hops <= maxRedirects; hops++) {
    const response = await headersOf(url, authorization, options);
    const location = redirectStatuses.has(response.status) ? response.headers.get("location") : null;
    if (location === null) return response;
    await response.body?.cancel();
    const next = redirectTarget(location, url, options.place);
    if (next.origin !== url.origin) authorization = undefined;
    url = next;
  }
  throw new RegistryRequestError({ place: options.place, problem: `more than ${maxRedirects} redirects` });
}

function redirectTarget(location: string, from: URL, place: string): URL {
  const next = URL.canParse(location, from) ? new URL(location, from) : undefined;
  const isDowngrade = from.protocol === "https:" && next?.protocol !== "https:";
  if (next === undefined || isDowngrade || (next.protocol !== "http:" && next.protocol !== "https:")) {
    throw new RegistryRequestError({ place, problem: "redirected to an address that is malformed or not secure" });
  }
  return next;
}

async function headersOf(url: URL, authorization: string | undefined, options: GetOptions): Promise<Response> {
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(), headersTimeoutMs);
  try {
    return await fetch(url, {
      redirect: "manual",
      signal: AbortSignal.any([options.signal, late.signal]),
      headers: {
        // fetch would undo a content encoding by itself, which breaks every digest.
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

/** The body's bytes; a long silence or a broken connection is a RegistryRequestError. */
export async function* bodyOf(options: {
  readonly response: Response;
  readonly place: string;
  readonly signal: AbortSignal;
}): AsyncGenerator<Uint8Array> {
  const { response, place, signal } = options;
  if (response.body === null) return;
  const reader = response.body.getReader();
  let stalled = false;
  const timer = setTimeout(() => {
    stalled = true;
    void reader.cancel().catch(() => undefined);
  }, stallTimeoutMs);
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      yield value;
      timer.refresh();
    }
  } catch (cause) {
    signal.throwIfAborted();
    throw networkFailure({ place, cause, brokeOff: isTransient(cause) });
  } finally {
    clearTimeout(timer);
    void reader.cancel().catch(() => undefined);
  }
  if (stalled) throw new RegistryRequestError({ place, problem: `sent nothing for ${stallTimeoutMs / 1000} s` });
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

function retryAfterMs(response: Response): number {
  const seconds = Number(response.headers.get("retry-after") ?? 0);
  return Number.isFinite(seconds) && seconds > 0 ? seconds * 1000 : 0;
}
