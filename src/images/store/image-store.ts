// Images on this host, ready to be attached to VMs: pulled blobs, and one squashfs for each chain of layers, whatever
// images and tags share it. As Nomad's docker driver does, the store asks a registry for `latest`, with `force_pull`, and
// for an image that it does not have. It also asks if a job may have an image that others pulled with credentials.
import { readFile } from "node:fs/promises";
import * as v from "valibot";
import { requireSpace } from "../../system/disk-space.ts";
import { DriverError, reasonOf } from "../../system/error.ts";
import { exists } from "../../system/files.ts";
import {
  PullAbortedError,
  PullFailedError,
  PullTimedOutError,
  ReportedImageError,
  StoreFailedError,
} from "../errors.ts";
import { type Puller, pullImage } from "../pull-image.ts";
import { formatReference, type ImageReference, parseReference } from "../reference.ts";
import type { Credentials } from "../registry/authenticator.ts";
import type { RegistryConfigs } from "../registry/endpoint.ts";
import { type ImageConfig, imageConfigSchema } from "../registry/image-config.ts";
import { noRegistryRules, RegistryPolicy, type RegistryRules } from "../registry/registry-policy.ts";
import { type NameAccess, nameAccessSchema, proofLifetimeMs, provenAt, withProof } from "./access.ts";
import { PullSession } from "./pull-session.ts";
import { StoreFiles } from "./store-files.ts";

export interface FindOptions {
  /** As the user wrote it. */
  readonly reference: string;
  readonly forcePull: boolean;
  readonly credentials?: Credentials | undefined;
}

export interface EnsureOptions extends FindOptions {
  readonly timeoutMs?: number | undefined;
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

/** "verify": the registry decides whether a job gets an image that was pulled with credentials; "cached": any job gets it. */
export type ImageAccess = "verify" | "cached";

const refSchema = v.object({
  digest: v.string(),
  chainId: v.string(),
  config: imageConfigSchema,
  access: v.optional(nameAccessSchema),
});
type Ref = v.InferOutput<typeof refSchema>;

const damagedCodes: ReadonlySet<string> = new Set(["digest_mismatch", "bad_layer", "image_limit"]);

export class ImageStore {
  readonly #files: StoreFiles;
  readonly #registries: RegistryConfigs;
  readonly #rules: RegistryRules;
  readonly #policy: RegistryPolicy;
  readonly #access: ImageAccess;
  readonly #mksquashfsPath: string;
  readonly #minFreeBytes: number;
  readonly #puller: Puller;
  readonly #now: () => number;

  constructor(options: {
    readonly directory: string;
    readonly registries: RegistryConfigs;
    readonly rules?: RegistryRules;
    readonly access?: ImageAccess;
    readonly mksquashfsPath?: string | undefined;
    /** A pull leaves this much of the file system free. Default: 0. */
    readonly minFreeBytes?: number | undefined;
    /** Default: in this process. */
    readonly puller?: Puller;
    readonly now?: () => number;
  }) {
    const { registries, rules = noRegistryRules } = options;
    this.#files = new StoreFiles(options.directory);
    this.#registries = registries;
    this.#rules = rules;
    this.#policy = new RegistryPolicy({ rules, registries });
    this.#access = options.access ?? "verify";
    this.#mksquashfsPath = options.mksquashfsPath ?? "mksquashfs";
    this.#minFreeBytes = options.minFreeBytes ?? 0;
    this.#puller = options.puller ?? pullImage;
    this.#now = options.now ?? Date.now;
  }

  /** Fails with an error of `errors.ts`. */
  async ensure(options: EnsureOptions): Promise<ResolvedImage> {
    const { reference, timeoutMs } = options;
    const timeout = timeoutMs === undefined ? undefined : AbortSignal.timeout(timeoutMs);
    const signal = AbortSignal.any([options.signal, ...(timeout === undefined ? [] : [timeout])]);
    try {
      return await this.#ensure({ ...options, signal });
    } catch (error) {
      if (timeoutMs !== undefined && timeout?.aborted === true) throw new PullTimedOutError({ reference, timeoutMs });
      if (options.signal.aborted) throw new PullAbortedError({ reference });
      throw error;
    }
  }

  /**
   * The image if the store has it, without a request to a registry; undefined if a registry must be asked. It reads one
   * small file: cheap enough for a process that must not be held up. Fails with InvalidReferenceError or
   * RegistryNotAllowedError.
   */
  async find(options: FindOptions): Promise<ResolvedImage | undefined> {
    const reference = this.#parse(options.reference);
    const known = isSettled(reference, options) ? await this.#known(reference) : undefined;
    if (known === undefined || !(await this.#isOpen(known, options))) return undefined;
    return this.#resolved(reference, known, true);
  }

  #parse(text: string): ImageReference {
    const reference = parseReference(text);
    this.#policy.requireAllowed(reference.host, text);
    return reference;
  }

  async #ensure(options: EnsureOptions): Promise<ResolvedImage> {
    const reference = this.#parse(options.reference);
    await this.#prepare();
    const known = await this.#known(reference);
    const asked = isSettled(reference, options) ? known : undefined;
    if (asked !== undefined && (await this.#isOpen(asked, options))) return this.#resolved(reference, asked, true);
    try {
      return await (asked === undefined
        ? this.#pull(reference, known, options)
        : this.#confirm(reference, asked, options));
    } catch (error) {
      if (known === undefined || options.forcePull || !isUnreachable(error)) throw error;
      if (!(await this.#wasOpen(known, options))) throw error;
      options.onProgress?.(`using the stored image of "${options.reference}": ${error.text}`);
      return this.#resolved(reference, known, true);
    }
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

  /** Whether the job gets the stored image without a question to its registry. */
  async #isOpen({ access }: Ref, { credentials }: FindOptions): Promise<boolean> {
    if (this.#access === "cached" || access?.isPublic === true) return true;
    const at = access === undefined ? undefined : await provenAt(access, credentials);
    return at !== undefined && this.#now() - at < proofLifetimeMs;
  }

  /** Whether the registry ever gave the stored image to this job's credentials. */
  async #wasOpen({ access }: Ref, { credentials }: FindOptions): Promise<boolean> {
    if (this.#access === "cached" || access?.isPublic === true) return true;
    return access !== undefined && (await provenAt(access, credentials)) !== undefined;
  }

  async #confirm(reference: ImageReference, known: Ref, options: EnsureOptions): Promise<ResolvedImage> {
    const { confirmation } = await this.#run(reference, known, options, known.digest);
    if (confirmation === undefined) throw this.#storeFailure(new Error("the registry's answer is missing"));
    await this.#write(reference, { ...known, access: await this.#proved(known.access, confirmation, options) });
    return this.#resolved(reference, known, true);
  }

  async #pull(reference: ImageReference, known: Ref | undefined, options: EnsureOptions): Promise<ResolvedImage> {
    const { pulled } = await this.#run(reference, known, options);
    if (pulled === undefined) throw this.#storeFailure(new Error("the image's facts are missing"));
    const { image, chainId, cached } = pulled;
    const access = await this.#proved(known?.digest === image.digest ? known.access : undefined, pulled, options);
    const ref: Ref = { digest: image.digest, chainId, config: image.config, access };
    await this.#write(reference, ref);
    return this.#resolved(reference, ref, cached);
  }

  async #run(reference: ImageReference, known: Ref | undefined, options: EnsureOptions, confirmDigest?: string) {
    const files = this.#files;
    const { credentials } = options;
    const full = new AbortController();
    const signal = AbortSignal.any([options.signal, full.signal]);
    await using scratch = await files.scratch().catch(async (cause: unknown) => {
      const what = `image "${formatReference(reference)}"`;
      await requireSpace({ path: files.directory, what, neededBytes: 0, minFreeBytes: this.#minFreeBytes });
      throw this.#storeFailure(cause);
    });
    await using session = new PullSession({
      files,
      reference,
      scratch: scratch.path,
      knownChainId: known?.chainId,
      minFreeBytes: this.#minFreeBytes,
      onDiskFull: (reason) => full.abort(reason),
      verifyAccess: this.#access === "verify",
      onProgress: options.onProgress ?? (() => undefined),
      signal,
    });
    const order = {
      reference: options.reference,
      registries: this.#registries,
      rules: this.#rules,
      credentials,
      confirmDigest,
      mksquashfsPath: this.#mksquashfsPath,
      storeDirectory: files.directory,
    };
    try {
      await this.#puller({ order, scratch: scratch.path, host: session, signal });
    } catch (error) {
      if (full.signal.aborted) throw full.signal.reason;
      if (error instanceof DriverError && damagedCodes.has(error.code)) await session.dropLayers();
      throw error;
    }
    const { confirmation } = session;
    return { confirmation, pulled: confirmDigest === undefined ? await session.finish() : undefined };
  }

  async #proved(
    access: NameAccess | undefined,
    { usedCredentials }: { readonly usedCredentials: boolean },
    { credentials }: EnsureOptions,
  ): Promise<NameAccess> {
    return await withProof(access, { credentials, usedCredentials, now: this.#now() });
  }

  async #write(reference: ImageReference, ref: Ref): Promise<void> {
    try {
      await this.#files.write(this.#files.ref(formatReference(reference)), JSON.stringify(ref));
    } catch (cause) {
      throw this.#storeFailure(cause);
    }
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

/** Whether a stored image stands for the name without a request to the registry. */
function isSettled(reference: ImageReference, options: { readonly forcePull: boolean }): boolean {
  const mayHaveMoved = reference.digest === undefined && reference.tag === "latest";
  return !options.forcePull && !mayHaveMoved;
}

function isUnreachable(error: unknown): error is DriverError {
  return (error instanceof PullFailedError || error instanceof ReportedImageError) && error.unreachable;
}
