// From a task's image reference to the image on this host, pulled if need be.
import { PullTimedOutError, ReportedImageError } from "../../images/errors.ts";
import { pullInChild } from "../../images/pull-in-child.ts";
import { ImageStore, type ResolvedImage } from "../../images/store/image-store.ts";
import { selfCommand } from "../../system/assets.ts";
import type { PluginSettings } from "../config/plugin/plugin-config.ts";
import type { ImageOptions } from "../config/task/image.ts";
import { RecoverableError } from "../errors.ts";
import { pullSlot } from "./start-slots.ts";

/** Fails with RecoverableError if a registry does not answer now: the job's `restart` policy decides about another try. */
export async function resolveImage(options: {
  image: ImageOptions;
  registries: PluginSettings["registries"];
  directory: string;
  /** A pull leaves this much of the file system free. */
  minFreeBytes: number;
  /** Reports slow steps to the job's author. */
  onEvent: (message: string) => void;
  signal: AbortSignal;
}): Promise<ResolvedImage> {
  const { image, registries, directory } = options;
  const store = new ImageStore({ directory, registries });
  // A child process of ours costs as much as booting a VM.
  const found = await store.find(image);
  if (found !== undefined) return found;
  using _slot = await pullSlot(options);
  // The slot's last holder may have pulled the same image.
  const foundNow = await store.find(image);
  if (foundNow !== undefined) return foundNow;
  try {
    return await pullInChild({
      command: [...selfCommand(), "internal", "pull"],
      request: {
        directory,
        registries,
        reference: image.reference,
        forcePull: image.forcePull,
        minFreeBytes: options.minFreeBytes,
        credentials: image.credentials,
      },
      timeoutMs: image.pullTimeoutMs,
      onProgress: options.onEvent,
      signal: options.signal,
    });
  } catch (error) {
    const retryable = (error instanceof ReportedImageError && error.retryable) || error instanceof PullTimedOutError;
    if (!retryable) throw error;
    throw new RecoverableError(error);
  }
}
