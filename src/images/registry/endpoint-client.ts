// GETs below one endpoint's `/v2/<repository>/`, with whatever authorization it asks for.
import { RegistryRequestError } from "../errors.ts";
import { authorizationFor, type Credentials } from "./authenticator.ts";
import type { Endpoint } from "./endpoint.ts";
import { refusal } from "./problem.ts";
import type { RegistryPolicy } from "./registry-policy.ts";
import { bodyOf, discard, get, type RegistryResponse, smallBodyOf } from "./request.ts";

const maxErrorBytes = 64 * 1024;

export class EndpointClient {
  readonly endpoint: Endpoint;
  readonly #repository: string;
  readonly #credentials: Credentials | undefined;
  readonly #policy: RegistryPolicy;
  readonly #signal: AbortSignal;
  #authorization: string | undefined;
  #sentCredentials = false;

  constructor(options: {
    readonly endpoint: Endpoint;
    readonly repository: string;
    readonly credentials: Credentials | undefined;
    readonly policy: RegistryPolicy;
    readonly signal: AbortSignal;
  }) {
    this.endpoint = options.endpoint;
    this.#repository = options.repository;
    this.#credentials = options.endpoint.isOrigin ? options.credentials : undefined;
    this.#policy = options.policy;
    this.#signal = options.signal;
  }

  /** The endpoint asked for credentials, and got them. */
  get sentCredentials(): boolean {
    return this.#sentCredentials;
  }

  /** Whether the endpoint gives this document to the client. Fails for a refusal; 404 is an answer. */
  async has(options: { readonly path: string; readonly accept?: string | undefined }): Promise<boolean> {
    try {
      discard(await this.#open(options.path, options.accept, "HEAD"));
      return true;
    } catch (error) {
      if (error instanceof RegistryRequestError && error.status === 404) return false;
      throw error;
    }
  }

  /** A document of limited size. */
  async small(options: {
    readonly path: string;
    readonly accept?: string | undefined;
    readonly maxBytes: number;
  }): Promise<Buffer> {
    const response = await this.#open(options.path, options.accept);
    return await smallBodyOf({
      response,
      place: this.endpoint.place,
      signal: this.#signal,
      maxBytes: options.maxBytes,
    });
  }

  /** A blob of exactly `sizeBytes`; the stream fails as soon as it has fewer or more. The caller checks the digest. */
  async *blob(options: { readonly digest: string; readonly sizeBytes: number }): AsyncGenerator<Uint8Array> {
    const place = `${this.endpoint.place}: blob ${options.digest}`;
    const response = await this.#open(`blobs/${options.digest}`, undefined);
    let sizeBytes = 0;
    for await (const chunk of bodyOf({ response, place, signal: this.#signal })) {
      sizeBytes += chunk.length;
      if (sizeBytes > options.sizeBytes) break;
      yield chunk;
    }
    if (sizeBytes !== options.sizeBytes) {
      const came = sizeBytes > options.sizeBytes ? "more than its" : `only ${sizeBytes} of its`;
      throw new RegistryRequestError({ place, problem: `sent ${came} ${options.sizeBytes} bytes` });
    }
  }

  async #open(path: string, accept: string | undefined, method?: "HEAD"): Promise<RegistryResponse> {
    const { baseUrl, place } = this.endpoint;
    const url = `${baseUrl}/v2/${this.#repository}/${path}`;
    const signal = this.#signal;
    const policy = this.#policy;
    let response = await get({ url, place, policy, method, accept, authorization: this.#authorization, signal });
    // A blob store that the registry redirects to must not name a token server: that would get the credentials.
    const isOwnAnswer = response.url.origin === new URL(baseUrl).origin;
    const challenge = response.status === 401 && isOwnAnswer ? response.header("www-authenticate") : undefined;
    if (challenge !== undefined) {
      const scope = `repository:${this.#repository}:pull`;
      const asked = authorizationFor({
        header: challenge,
        baseUrl,
        place,
        policy,
        scope,
        credentials: this.#credentials,
        signal,
      });
      const refused = response;
      const authorization = await asked.catch((error: unknown) => {
        discard(refused);
        throw error;
      });
      if (authorization !== undefined) {
        discard(response);
        this.#authorization = authorization;
        this.#sentCredentials = this.#credentials !== undefined;
        response = await get({ url, place, policy, method, accept, authorization, signal });
      }
    }
    if (response.status === 200) return response;
    const body = await smallBodyOf({ response, place, signal, maxBytes: maxErrorBytes }).catch(() => Buffer.alloc(0));
    signal.throwIfAborted();
    throw refusal({ place, status: response.status, body, hasCredentials: this.#credentials !== undefined });
  }
}
