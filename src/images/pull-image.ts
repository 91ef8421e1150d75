// The part of a pull that handles bytes of others: it asks the registry, reads layers and converts them. It runs in a process
// without rights, and writes only below its scratch directory. The host's side (store/pull-session.ts) owns the store: it
// says which layers are needed, takes blobs and the disk over, and trusts no path.
import { join } from "node:path";
import { DriverError, reasonOf } from "../system/error.ts";
import { writeFileAtomically } from "../system/files.ts";
import { convertLayers } from "./convert.ts";
import { digestHex } from "./digest.ts";
import { StoreFailedError } from "./errors.ts";
import { parseReference } from "./reference.ts";
import type { Credentials } from "./registry/authenticator.ts";
import type { RegistryConfigs } from "./registry/endpoint.ts";
import { RegistryClient, type RemoteImage } from "./registry/registry-client.ts";
import { RegistryPolicy, type RegistryRules } from "./registry/registry-policy.ts";

export interface PullOrder {
  /** As the user wrote it. */
  readonly reference: string;
  readonly registries: RegistryConfigs;
  readonly rules: RegistryRules;
  readonly credentials?: Credentials | undefined;
  /** Only asks if the registry still gives this manifest: the host has the image. */
  readonly confirmDigest?: string | undefined;
  readonly mksquashfsPath: string;
  /** The store's own path, for messages. */
  readonly storeDirectory: string;
}

/** Positions of layers, and whether the disk must be made. */
export interface LayerPlan {
  readonly fetch: readonly number[];
  /** To be fetched if the registry does not say that it gives them to this job. */
  readonly prove: readonly number[];
  readonly convert: boolean;
}

/** The host's side. */
export interface PullHost {
  readonly progress: (message: string) => void;
  readonly confirmed: (facts: { readonly usedCredentials: boolean }) => void;
  readonly resolved: (facts: { readonly image: RemoteImage; readonly usedCredentials: boolean }) => Promise<LayerPlan>;
  /** The blobs of these positions are in the scratch directory. Afterwards those of all layers are, for a conversion. */
  readonly fetched: (layers: readonly number[]) => Promise<void>;
}

export interface PullOptions {
  readonly order: PullOrder;
  /** A directory for this pull alone; it disappears afterwards. */
  readonly scratch: string;
  readonly host: PullHost;
  readonly signal: AbortSignal;
}

export type Puller = (options: PullOptions) => Promise<void>;

export function scratchBlob(scratch: string, digest: string): string {
  return join(scratch, `${digestHex(digest)}.blob`);
}

export function scratchDisk(scratch: string): string {
  return join(scratch, "image.squashfs");
}

/** Fails with an error of `errors.ts`, or with the signal's reason. */
export async function pullImage(options: PullOptions): Promise<void> {
  const { order, scratch, host, signal } = options;
  const { registries, rules, credentials } = order;
  const name = order.reference;
  const client = new RegistryClient({
    name,
    reference: parseReference(name),
    registries,
    policy: new RegistryPolicy({ rules, registries }),
    credentials,
    signal,
  });
  if (order.confirmDigest !== undefined) {
    await client.confirm(order.confirmDigest);
    host.confirmed({ usedCredentials: client.usedCredentials });
    return;
  }
  const image = await client.resolve();
  const plan = await host.resolved({ image, usedCredentials: client.usedCredentials });
  const wanted = [...plan.fetch];
  for (const index of plan.prove) {
    const digest = image.layers[index]?.descriptor.digest ?? "";
    if (!(await client.hasBlob(digest))) wanted.push(index);
  }
  if (wanted.length > 0) {
    const sizeBytes = wanted.reduce((sum, index) => sum + (image.layers[index]?.descriptor.size ?? 0), 0);
    host.progress(`Downloading image "${name}" (${(sizeBytes / 1e6).toFixed(1)} MB)`);
  }
  for (const index of wanted) await fetchLayer(client, image, index, options);
  await host.fetched(wanted);
  if (!plan.convert) return;
  host.progress(`Converting image "${name}" to a disk`);
  await convertLayers({
    reference: name,
    layers: image.layers.map(({ descriptor, diffId }) => ({
      blobPath: scratchBlob(scratch, descriptor.digest),
      digest: descriptor.digest,
      diffId,
    })),
    outputPath: scratchDisk(scratch),
    mksquashfsPath: order.mksquashfsPath,
    signal,
  });
}

async function fetchLayer(
  client: RegistryClient,
  image: RemoteImage,
  index: number,
  { order, scratch, signal }: PullOptions,
): Promise<void> {
  const descriptor = image.layers[index]?.descriptor;
  if (descriptor === undefined) throw new RangeError(`there is no layer ${index}`);
  const path = scratchBlob(scratch, descriptor.digest);
  await client.fetchBlob(descriptor, async (content) => {
    try {
      await writeFileAtomically({ path, content, temporaryPath: `${path}.part`, signal });
    } catch (error) {
      if (!isLocal(error)) throw error;
      throw new StoreFailedError({ directory: order.storeDirectory, problem: reasonOf(error), cause: error });
    }
  });
}

/** A full or broken disk is not the registry's fault. */
function isLocal(error: unknown): boolean {
  if (error instanceof DriverError) return false;
  const code = (error as NodeJS.ErrnoException).code;
  return code !== undefined && ["ENOSPC", "EDQUOT", "EROFS", "EACCES", "EIO", "ENOENT", "EMFILE"].includes(code);
}
