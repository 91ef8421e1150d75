// Images on this host, ready to be attached to VMs: pulled blobs, and one squashfs for each chain of layers, whatever
// images and tags share it. As Nomad's docker driver does, the store asks a registry for `latest`, with `force_pull`, and
// for an image that it does not have.
import { readFile, rm } from "node:fs/promises";
import * as v from "valibot";
import { keepingSpaceFree, type SpaceNeed } from "../../system/disk-space.ts";
import { DriverError, reasonOf } from "../../system/error.ts";
import { exists } from "../../system/files.ts";
import { sha256 } from "../digest.ts";
import {
  BadLayerError,
  DigestMismatchError,
  ImageLimitError,
  PullFailedError,
  RegistryRequestError,
  StoreFailedError,
} from "../errors.ts";
import { formatReference, type ImageReference, parseReference } from "../reference.ts";
import type { Credentials } from "../registry/authenticator.ts";
import type { RegistryConfigs } from "../registry/endpoint.ts";
import { type ImageConfig, imageConfigSchema } from "../registry/image-config.ts";
import { RegistryClient, type RemoteImage } from "../registry/registry-client.ts";
import { convertLayers } from "./convert.ts";
import { StoreFiles } from "./store-files.ts";
import { acquireLock } from "./store-lock.ts";

export interface EnsureOptions {
  /** As the user wrote it. */
  readonly reference: string;
  readonly forcePull: boolean;
  readonly credentials?: Credentials | undefined;
  readonly signal: AbortSignal;
  /** Called with a sentence before a long step, and for warnings. */
  readonly onProgress?: ((message: string) => void) | undefined;
}

export interface ResolvedImage {
  /** With the digest that the tag stands for. */
  readonly reference: string;
  readonly squashfsPath: string;
  readonly config: ImageConfig;
  /** The store had the squashfs already. */
  readonly cached: boolean;
}

const refSchema = v.object({ digest: v.string(), chainId: v.string(), config: imageConfigSchema });
type Ref = v.InferOutput<typeof refSchema>;

export class ImageStore {
  readonly #files: StoreFiles;
  readonly #registries: RegistryConfigs;
  readonly #mksquashfsPath: string;
  readonly #minFreeBytes: number;

  constructor(options: {
    readonly directory: string;
    readonly registries: RegistryConfigs;
    readonly mksquashfsPath?: string | undefined;
    /** A pull leaves this much of the file system free. Default: 0. */
    readonly minFreeBytes?: number | undefined;
  }) {
    this.#minFreeBytes = options.minFreeBytes ?? 0;
    this.#files = new StoreFiles(options.directory);
    this.#registries = options.registries;
    this.#mksquashfsPath = options.mksquashfsPath ?? "mksquashfs";
  }

  /** Fails with an error of `errors.ts`, or with the signal's reason. */
  async ensure(options: EnsureOptions): Promise<ResolvedImage> {
    const reference = parseReference(options.reference);
    await this.#prepare();
    const known = await this.#known(reference);
    if (known !== undefined && isSettled(reference, options)) return this.#resolved(reference, known, true);
    const client = new RegistryClient({
      name: options.reference,
      reference,
      registries: this.#registries,
      credentials: options.credentials,
      signal: options.signal,
    });
    let remote: RemoteImage;
    try {
      remote = await client.resolve();
    } catch (error) {
      if (known === undefined || options.forcePull || !isUnreachable(error)) throw error;
      options.onProgress?.(`using the stored image of "${options.reference}": ${error.text}`);
      return this.#resolved(reference, known, true);
    }
    return await this.#bring(reference, remote, client, options);
  }

  /**
   * The image if the store has it, without a request to a registry; undefined if a registry must be asked. It reads one
   * small file: cheap enough for a process that must not be held up. Fails with InvalidReferenceError.
   */
  async find(options: { readonly reference: string; readonly forcePull: boolean }): Promise<ResolvedImage | undefined> {
    const reference = parseReference(options.reference);
    const known = isSettled(reference, options) ? await this.#known(reference) : undefined;
    return known === undefined ? undefined : this.#resolved(reference, known, true);
  }

  async #prepare(): Promise<void> {
    try {
      await this.#files.prepare();
      await this.#files.removeStale();
    } catch (cause) {
      throw this.#storeFailure(cause);
    }
  }

  /** The image that the name stood for at its last pull, if the store still has all of it. */
  async #known(reference: ImageReference): Promise<Ref | undefined> {
    try {
      const text = await readFile(this.#files.ref(formatReference(reference)), "utf8");
      const ref = v.parse(refSchema, JSON.parse(text));
      return (await exists(this.#files.squashfs(ref.chainId))) ? ref : undefined;
    } catch {
      return undefined;
    }
  }

  async #bring(
    reference: ImageReference,
    remote: RemoteImage,
    client: RegistryClient,
    options: EnsureOptions,
  ): Promise<ResolvedImage> {
    const chainId = chainIdOf(remote.layers.map(({ diffId }) => diffId));
    const squashfsPath = this.#files.squashfs(chainId);
    await using _lock = await acquireLock({ path: this.#files.lock(chainId), signal: options.signal });
    const cached = await exists(squashfsPath);
    if (!cached) {
      const need = { ...this.#spaceFor(remote, options), signal: options.signal };
      await keepingSpaceFree(need, (signal) => this.#convert(remote, client, squashfsPath, { ...options, signal }));
    }
    const ref: Ref = { digest: remote.digest, chainId, config: remote.config };
    try {
      await this.#files.write(this.#files.ref(formatReference(reference)), JSON.stringify(ref));
    } catch (cause) {
      throw this.#storeFailure(cause);
    }
    return this.#resolved(reference, ref, cached);
  }

  /** A disk is about as large as its layers, and both are there at the conversion's end. */
  #spaceFor(remote: RemoteImage, { reference }: EnsureOptions): SpaceNeed {
    const layers = remote.layers.reduce((sum, { descriptor }) => sum + descriptor.size, 0);
    return {
      path: this.#files.directory,
      what: `image "${reference}"`,
      neededBytes: 2 * layers,
      minFreeBytes: this.#minFreeBytes,
    };
  }

  async #convert(
    remote: RemoteImage,
    client: RegistryClient,
    squashfsPath: string,
    options: EnsureOptions,
  ): Promise<void> {
    const { signal, onProgress } = options;
    const sizeBytes = remote.layers.reduce((sum, { descriptor }) => sum + descriptor.size, 0);
    onProgress?.(`Downloading image "${options.reference}" (${(sizeBytes / 1e6).toFixed(1)} MB)`);
    const layers = [];
    for (const { descriptor, diffId } of remote.layers) {
      const blobPath = this.#files.blob(descriptor.digest);
      if (!(await exists(blobPath))) {
        await client.fetchBlob(descriptor, async (source) => {
          try {
            await this.#files.write(blobPath, source, signal);
          } catch (error) {
            throw isLocal(error) ? this.#storeFailure(error) : error;
          }
        });
      }
      layers.push({ blobPath, digest: descriptor.digest, diffId });
    }
    onProgress?.(`Converting image "${options.reference}" to a disk`);
    const outputPath = await this.#files.temporary();
    const mksquashfsPath = this.#mksquashfsPath;
    try {
      await convertLayers({ reference: options.reference, layers, outputPath, mksquashfsPath, signal });
    } catch (error) {
      // The disk or the image's author damaged it. The next start pulls the layers again, which distinguishes the two.
      const isLayers = error instanceof DigestMismatchError || error instanceof BadLayerError;
      if (isLayers || error instanceof ImageLimitError) {
        await Promise.all(layers.map(({ blobPath }) => rm(blobPath, { force: true })));
      }
      throw error;
    }
    await this.#files.publish(outputPath, squashfsPath);
  }

  #resolved(reference: ImageReference, ref: Ref, cached: boolean): ResolvedImage {
    return {
      reference: formatReference({ ...reference, digest: ref.digest }),
      squashfsPath: this.#files.squashfs(ref.chainId),
      config: ref.config,
      cached,
    };
  }

  #storeFailure(cause: unknown): StoreFailedError {
    return new StoreFailedError({ directory: this.#files.directory, problem: reasonOf(cause), cause });
  }
}

/** OCI image spec, config.md, "Layer ChainID"; the digest of nothing for an image without layers. */
export function chainIdOf(diffIds: readonly string[]): string {
  const [first, ...rest] = diffIds;
  return first === undefined ? sha256("") : rest.reduce((chain, diffId) => sha256(`${chain} ${diffId}`), first);
}

/** Whether a stored image stands for the name without a request to the registry. */
function isSettled(reference: ImageReference, options: { readonly forcePull: boolean }): boolean {
  const mayHaveMoved = reference.digest === undefined && reference.tag === "latest";
  return !options.forcePull && !mayHaveMoved;
}

/** No endpoint answered at all; a refusal or a missing image is an answer. */
function isUnreachable(error: unknown): error is PullFailedError {
  return (
    error instanceof PullFailedError &&
    error.failures.every((failure) => failure instanceof RegistryRequestError && failure.status === undefined)
  );
}

/** A full or broken disk is not the registry's fault. */
function isLocal(error: unknown): boolean {
  if (error instanceof DriverError) return false;
  const code = (error as NodeJS.ErrnoException).code;
  return code !== undefined && ["ENOSPC", "EDQUOT", "EROFS", "EACCES", "EIO", "ENOENT", "EMFILE"].includes(code);
}
