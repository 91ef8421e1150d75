// The host's side of one pull. It decides what the job may have of the store, and takes over what the other side fetched and
// made. The image's facts are those that were told before a layer was read: a layer that takes over the process that
// reads it can damage only the disk of its own image.
import { chmod, link, rm } from "node:fs/promises";
import { keepingSpaceFree } from "../../system/disk-space.ts";
import { reasonOf } from "../../system/error.ts";
import { exists } from "../../system/files.ts";
import { sha256 } from "../digest.ts";
import { StoreFailedError } from "../errors.ts";
import { type LayerPlan, type PullHost, scratchBlob, scratchDisk } from "../pull-image.ts";
import { formatReference, type ImageReference } from "../reference.ts";
import type { RemoteImage } from "../registry/registry-client.ts";
import { grantAccess, mayUse, readAccess } from "./access.ts";
import type { StoreFiles } from "./store-files.ts";
import { acquireLock } from "./store-lock.ts";

/** Root's; the process that converts reads blobs by links in its scratch directory. */
const blobMode = 0o444;
/** The jailed VMMs' users read it. */
const diskMode = 0o644;

export interface PulledImage {
  readonly image: RemoteImage;
  readonly chainId: string;
  readonly usedCredentials: boolean;
  /** The store had the disk already. */
  readonly cached: boolean;
}

export interface PullSessionOptions {
  readonly files: StoreFiles;
  readonly reference: ImageReference;
  readonly scratch: string;
  /** A chain of layers that the name's own registry gave before. */
  readonly knownChainId: string | undefined;
  /** Whether the job has to show that it may have what others pulled. */
  readonly verifyAccess: boolean;
  /** The pull leaves this much of the file system free. */
  readonly minFreeBytes: number;
  /** The pull must end; called at most once. */
  readonly onDiskFull: (reason: unknown) => void;
  readonly onProgress: (message: string) => void;
  readonly signal: AbortSignal;
}

export class PullSession implements PullHost, AsyncDisposable {
  readonly #options: PullSessionOptions;
  readonly #origin: string;
  #lock: AsyncDisposable | undefined;
  #resolved: (Omit<PulledImage, "cached"> & { readonly plan: LayerPlan; readonly hasDisk: boolean }) | undefined;
  readonly #disposed = Promise.withResolvers<void>();
  #wasFetched = false;
  /** The registry's answer to a question about a stored image. */
  confirmation: { readonly usedCredentials: boolean } | undefined;

  constructor(options: PullSessionOptions) {
    this.#options = options;
    this.#origin = `${options.reference.host}/${options.reference.repository}`;
  }

  progress(message: string): void {
    this.#options.onProgress(message);
  }

  confirmed(facts: { readonly usedCredentials: boolean }): void {
    this.confirmation = facts;
  }

  async resolved(facts: { readonly image: RemoteImage; readonly usedCredentials: boolean }): Promise<LayerPlan> {
    if (this.#resolved !== undefined) throw new Error("the image was resolved twice");
    const { files, signal } = this.#options;
    const chainId = chainIdOf(facts.image.layers.map(({ diffId }) => diffId));
    this.#lock = await acquireLock({ path: files.lock(chainId), signal });
    const hasDisk = await exists(files.squashfs(chainId));
    const plan = await this.#plan(facts.image, chainId, hasDisk);
    this.#resolved = { ...facts, chainId, plan, hasDisk };
    const layers = facts.image.layers;
    const size = (index: number): number => layers[index]?.descriptor.size ?? 0;
    // A disk is about as large as its layers, and both are there at the conversion's end.
    const written = [...plan.fetch, ...(plan.convert ? layers.keys() : [])];
    if (written.length > 0) await this.#keepSpaceFree(written.reduce((sum, index) => sum + size(index), 0));
    return plan;
  }

  /** Until the disposal. Fails with DiskFullError. */
  async #keepSpaceFree(neededBytes: number): Promise<void> {
    const { files, reference, minFreeBytes, onDiskFull, signal } = this.#options;
    const need = { path: files.directory, what: `image "${formatReference(reference)}"`, neededBytes, minFreeBytes };
    const begun = Promise.withResolvers<void>();
    keepingSpaceFree({ ...need, signal }, async (kept) => {
      kept.addEventListener("abort", () => onDiskFull(kept.reason), { once: true });
      begun.resolve();
      await this.#disposed.promise;
    }).catch(begun.reject);
    await begun.promise;
  }

  async #plan(image: RemoteImage, chainId: string, hasDisk: boolean): Promise<LayerPlan> {
    const { files, verifyAccess, knownChainId } = this.#options;
    const chain = hasDisk ? await readAccess(files, chainId) : undefined;
    const isGiven = !verifyAccess || chainId === knownChainId || mayUse(chain, this.#origin);
    if (hasDisk && isGiven) return { fetch: [], prove: [], convert: false };
    // The stored disk was made from these very blobs; others may claim to unpack to the same.
    const isSameBlobs = chain?.blobs?.join() === image.layers.map(({ descriptor }) => descriptor.digest).join();
    const convert = !(hasDisk && isSameBlobs);
    const fetch: number[] = [];
    const prove: number[] = [];
    for (const [index, { descriptor }] of image.layers.entries()) {
      const access = await readAccess(files, descriptor.digest);
      const isThere = !convert || (await exists(files.blob(descriptor.digest)));
      const isOpen = !verifyAccess || mayUse(access, this.#origin);
      // Only the registry that gave the blob is believed when it says who may have it.
      const isSameHost =
        access?.origins.some((origin) => origin.startsWith(`${this.#options.reference.host}/`)) === true;
      if (isThere && isOpen) continue;
      if (isThere && isSameHost) prove.push(index);
      else fetch.push(index);
    }
    return { fetch, prove, convert };
  }

  async fetched(layers: readonly number[]): Promise<void> {
    const { files, scratch } = this.#options;
    if (this.#resolved === undefined || this.#wasFetched) throw new Error("no layers were asked for");
    this.#wasFetched = true;
    const { image, plan, usedCredentials } = this.#resolved;
    if (plan.fetch.some((index) => !layers.includes(index))) throw new Error("a layer is missing");
    const grant = { origin: this.#origin, isPublic: !usedCredentials };
    try {
      for (const index of new Set([...plan.prove, ...layers])) {
        const digest = image.layers[index]?.descriptor.digest;
        if (digest === undefined) throw new RangeError(`there is no layer ${index}`);
        // One blob may be several layers of an image.
        const fetched = scratchBlob(scratch, digest);
        if (layers.includes(index) && (await exists(fetched))) await files.adopt(fetched, files.blob(digest), blobMode);
        await grantAccess(files, digest, grant);
      }
      if (!plan.convert) return;
      for (const digest of new Set(image.layers.map(({ descriptor }) => descriptor.digest))) {
        await chmod(files.blob(digest), blobMode);
        await link(files.blob(digest), scratchBlob(scratch, digest));
      }
    } catch (cause) {
      throw this.#failure(cause);
    }
  }

  /** Once the other side has ended without an error. */
  async finish(): Promise<PulledImage> {
    const { files, scratch } = this.#options;
    if (this.#resolved === undefined || !this.#wasFetched) throw this.#failure(new Error("the pull did not end"));
    const { image, chainId, usedCredentials, plan, hasDisk } = this.#resolved;
    try {
      // The same layers give the same bytes; VMs may have the stored file open.
      if (plan.convert && !hasDisk) await files.adopt(scratchDisk(scratch), files.squashfs(chainId), diskMode);
      const blobs = image.layers.map(({ descriptor }) => descriptor.digest);
      const isPublic = !usedCredentials;
      // Without a conversion nobody has seen that these blobs unpack to this chain.
      const seen = plan.convert ? { blobs } : {};
      await grantAccess(files, chainId, { origin: this.#origin, isPublic, ...seen });
    } catch (cause) {
      throw this.#failure(cause);
    }
    return { image, chainId, usedCredentials, cached: hasDisk };
  }

  /** The disk or the image's author damaged the layers. The next start pulls them again, which distinguishes the two. */
  async dropLayers(): Promise<void> {
    const { files } = this.#options;
    const layers = this.#resolved?.image.layers ?? [];
    await Promise.all(layers.map(({ descriptor }) => rm(files.blob(descriptor.digest), { force: true })));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#disposed.resolve();
    await this.#lock?.[Symbol.asyncDispose]();
  }

  #failure(cause: unknown): StoreFailedError {
    const { files, reference } = this.#options;
    const problem = `${formatReference(reference)}: ${reasonOf(cause)}`;
    return new StoreFailedError({ directory: files.directory, problem, cause });
  }
}

/** OCI image spec, config.md, "Layer ChainID"; the digest of nothing for an image without layers. */
export function chainIdOf(diffIds: readonly string[]): string {
  const [first, ...rest] = diffIds;
  return first === undefined ? sha256("") : rest.reduce((chain, diffId) => sha256(`${chain} ${diffId}`), first);
}
