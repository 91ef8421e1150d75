// From a task's image reference to the image on this host, pulled if need be.
import { PullTimedOutError, ReportedImageError } from "../../images/errors.ts";
import { childPuller, emptyRoot } from "../../images/pull-in-child.ts";
import { ImageStore, type ResolvedImage } from "../../images/store/image-store.ts";
import { metadataFloor } from "../../network/plan/egress-policy.ts";
import { selfCommand, selfFiles } from "../../system/assets.ts";
import { findProgram } from "../../system/processes.ts";
import type { PluginSettings } from "../config/plugin/plugin-config.ts";
import type { ImageOptions } from "../config/task/image.ts";
import { RecoverableError } from "../errors.ts";
import type { ReadyHost } from "../host/inspect-host.ts";
import { pullSlot } from "./start-slots.ts";

/** Fails with RecoverableError if a registry does not answer now: the job's `restart` policy decides about another try. */
export async function resolveImage(options: {
  image: ImageOptions;
  settings: PluginSettings;
  host: ReadyHost;
  /** A pull leaves this much of the file system free. */
  minFreeBytes: number;
  /** Reports slow steps to the job's author. */
  onEvent: (message: string) => void;
  signal: AbortSignal;
}): Promise<ResolvedImage> {
  const { image, onEvent, signal } = options;
  // A child process of ours costs as much as booting a VM.
  const found = await imageStore(options).find(image);
  if (found !== undefined) return found;
  using _slot = await pullSlot(options);
  // The user of a pull may not enter every directory on PATH.
  const store = imageStore({ ...options, mksquashfsPath: await findProgram("mksquashfs") });
  try {
    return await store.ensure({ ...image, timeoutMs: image.pullTimeoutMs, onProgress: onEvent, signal });
  } catch (error) {
    const retryable = (error instanceof ReportedImageError && error.retryable) || error instanceof PullTimedOutError;
    if (!retryable) throw error;
    throw new RecoverableError(error);
  }
}

/** The host connects for the job: not to where the job's VM could not. A rule for all addresses is about VMs alone. */
function deniedNetworks({ network }: PluginSettings): PluginSettings["network"]["egressDeny"] {
  return network.egressDeny.filter((rule) => !rule.network.endsWith("/0"));
}

function imageStore(options: {
  settings: PluginSettings;
  host: ReadyHost;
  minFreeBytes: number;
  /** Undefined: the pull says what is missing. */
  mksquashfsPath?: string | undefined;
}): ImageStore {
  const { settings, host, minFreeBytes, mksquashfsPath } = options;
  const directory = host.directories.images;
  const { shimPath, cgroups } = host.machines;
  return new ImageStore({
    directory,
    minFreeBytes,
    mksquashfsPath,
    registries: settings.registries,
    rules: { allowed: settings.registriesAllowed, denied: [...metadataFloor([]), ...deniedNetworks(settings)] },
    access: settings.imageAccess,
    puller: childPuller([...selfCommand(), "internal", "pull-worker"], {
      shimPath,
      // The VMs have the users before it.
      uid: settings.jailer.users.last,
      emptyDirectory: emptyRoot(directory),
      programFiles: selfFiles(),
      cgroups,
      memoryMib: settings.pullMemoryMaxMib,
    }),
  });
}
