// Resolves one image and fetches its blobs: each request goes to the mirrors in order and then to the registry itself;
// the endpoint that answered last comes first. Every byte is checked against a digest.
import { setTimeout as sleep } from "node:timers/promises";
import { DriverError } from "../../system/error.ts";
import { digestHex, sha256, verified } from "../digest.ts";
import {
  BadManifestError,
  DigestMismatchError,
  PullFailedError,
  RegistryRequestError,
  UnsupportedImageError,
} from "../errors.ts";
import type { ImageReference } from "../reference.ts";
import type { Credentials } from "./authenticator.ts";
import { endpointsOf, type RegistryConfigs } from "./endpoint.ts";
import { EndpointClient } from "./endpoint-client.ts";
import { type ImageConfig, parseImageConfig } from "./image-config.ts";
import {
  type BlobDescriptor,
  chooseForPlatform,
  type ManifestOrIndex,
  manifestAccept,
  parseManifest,
} from "./manifest.ts";
import type { RegistryPolicy } from "./registry-policy.ts";

/** The distribution spec asks registries to accept manifests of at least 4 MiB; larger ones are not seen. */
const maxManifestBytes = 4 << 20;
const maxConfigBytes = 8 << 20;
const maxIndexDepth = 3;
const maxBlobAttempts = 3;
const blobPauseMs = 500;

export interface ResolvedLayer {
  readonly descriptor: BlobDescriptor;
  readonly diffId: string;
}

export interface RemoteImage {
  /** The digest that the tag names: the index's, if there is one. */
  readonly digest: string;
  /** The manifest for this platform. */
  readonly manifestDigest: string;
  readonly config: ImageConfig;
  readonly layers: readonly ResolvedLayer[];
}

export class RegistryClient {
  /** As the user wrote it, for messages. */
  readonly #name: string;
  readonly #reference: ImageReference;
  readonly #signal: AbortSignal;
  #endpoints: readonly EndpointClient[];

  constructor(options: {
    readonly name: string;
    readonly reference: ImageReference;
    readonly registries: RegistryConfigs;
    readonly policy: RegistryPolicy;
    readonly credentials?: Credentials | undefined;
    readonly signal: AbortSignal;
  }) {
    const { host, repository } = options.reference;
    const { credentials, policy, signal } = options;
    this.#name = options.name;
    this.#reference = options.reference;
    this.#signal = signal;
    this.#endpoints = endpointsOf({ host, registries: options.registries }).map(
      (endpoint) => new EndpointClient({ endpoint, repository, credentials, policy, signal }),
    );
  }

  /** Whether the registry itself asked for credentials, and got them. */
  get usedCredentials(): boolean {
    return this.#endpoints.some((client) => client.sentCredentials);
  }

  /**
   * Asks whether this client may have an image that is on the host already: for its manifest, and if the registry dropped
   * that, for the name. Fails with PullFailedError.
   */
  async confirm(digest: string): Promise<void> {
    const names = [digest, ...(this.#reference.tag === undefined ? [] : [this.#reference.tag])];
    await this.#firstOf(async (client) => {
      for (const name of names) {
        if (await client.has({ path: `manifests/${name}`, accept: manifestAccept })) return;
      }
      throw new RegistryRequestError({
        place: client.endpoint.place,
        status: 404,
        problem: "not found (404)",
        cure: "check the image's name and tag",
      });
    });
  }

  /** Whether the registry gives this client the blob; false for a refusal too. */
  async hasBlob(digest: string): Promise<boolean> {
    const path = `blobs/${digest}`;
    return await this.#firstOf((client) => client.has({ path })).catch(() => {
      this.#signal.throwIfAborted();
      return false;
    });
  }

  /** Fails with PullFailedError, UnsupportedImageError or BadManifestError. */
  async resolve(): Promise<RemoteImage> {
    let current = await this.#manifest(this.#reference.digest, this.#reference.tag ?? "latest");
    const digest = current.digest;
    for (let depth = 0; current.document.kind === "index"; depth++) {
      if (depth === maxIndexDepth) {
        throw new BadManifestError({ what: `the index of "${this.#name}"`, problem: "indexes are nested too deeply" });
      }
      const chosen = chooseForPlatform(current.document.entries, `"${this.#name}"`);
      current = await this.#manifest(chosen.digest, chosen.digest);
    }
    const manifest = current.document.manifest;
    const body = await this.#configBlob(manifest.config);
    const what = `the config of "${this.#name}"`;
    const { config, diffIds } = parseImageConfig({ body, what, layerCount: manifest.layers.length });
    const layers = manifest.layers.map((descriptor, index) => ({ descriptor, diffId: diffIds[index] ?? "" }));
    return { digest, manifestDigest: current.digest, config, layers };
  }

  /**
   * Streams a blob into `consume`, and calls it again from the start if an endpoint breaks off or lies. Only a call
   * that returned has seen the right bytes to their end.
   */
  async fetchBlob<T>(
    descriptor: BlobDescriptor,
    consume: (source: AsyncIterable<Uint8Array>) => Promise<T>,
  ): Promise<T> {
    return await this.#firstOf(async (client) => {
      for (let attempt = 1; ; attempt++) {
        try {
          const source = client.blob({ digest: descriptor.digest, sizeBytes: descriptor.size });
          const what = `${client.endpoint.place}: blob ${digestHex(descriptor.digest).slice(0, 12)}`;
          return await consume(verified({ source, what, digest: descriptor.digest }));
        } catch (error) {
          const brokeOff = error instanceof RegistryRequestError && error.brokeOff;
          if (!brokeOff || attempt === maxBlobAttempts) throw error;
          await sleep(blobPauseMs * attempt, undefined, { signal: this.#signal });
        }
      }
    });
  }

  async #manifest(
    digest: string | undefined,
    name: string,
  ): Promise<{ readonly digest: string; readonly document: ManifestOrIndex }> {
    return await this.#firstOf(async (client) => {
      const place = client.endpoint.place;
      const body = await client.small({
        path: `manifests/${digest ?? name}`,
        accept: manifestAccept,
        maxBytes: maxManifestBytes,
      });
      const actual = sha256(body);
      if (digest !== undefined && actual !== digest) {
        throw new DigestMismatchError({ what: `${place}: manifest`, expected: digest, actual });
      }
      return {
        digest: actual,
        document: parseManifest(body.toString("utf8"), `${place}: manifest of "${this.#name}"`),
      };
    });
  }

  async #configBlob(descriptor: BlobDescriptor): Promise<string> {
    if (descriptor.size > maxConfigBytes) {
      throw new BadManifestError({ what: `the config of "${this.#name}"`, problem: `it has ${descriptor.size} bytes` });
    }
    return await this.fetchBlob(descriptor, async (source) => {
      const chunks: Uint8Array[] = [];
      for await (const chunk of source) chunks.push(chunk);
      return Buffer.concat(chunks).toString("utf8");
    });
  }

  /** Faults of an endpoint lead to the next one; faults of the image itself, of this machine or of the caller do not. */
  async #firstOf<T>(attempt: (client: EndpointClient) => Promise<T>): Promise<T> {
    const failures: DriverError[] = [];
    for (const client of this.#endpoints) {
      try {
        const result = await attempt(client);
        this.#endpoints = [client, ...this.#endpoints.filter((other) => other !== client)];
        return result;
      } catch (error) {
        this.#signal.throwIfAborted();
        if (!(error instanceof DriverError) || error instanceof UnsupportedImageError) throw error;
        failures.push(error);
      }
    }
    throw new PullFailedError({ reference: this.#name, failures, cause: failures.at(-1) });
  }
}
