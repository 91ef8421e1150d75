// The child that pulls: the request comes as JSON on stdin, lines of JSON go out on stdout (progress, then one result
// or one error). The parent keeps its event loop free, and the memory is freed at the child's end.
import { text } from "node:stream/consumers";
import * as v from "valibot";
import { DriverError, reasonOf } from "../system/error.ts";
import { PullFailedError } from "./errors.ts";
import { credentialsSchema } from "./registry/authenticator.ts";
import { registryConfigsSchema } from "./registry/endpoint.ts";
import { imageConfigSchema } from "./registry/image-config.ts";
import { ImageStore } from "./store/image-store.ts";

export const pullRequestSchema = v.object({
  directory: v.string(),
  registries: registryConfigsSchema,
  reference: v.string(),
  forcePull: v.boolean(),
  /** The space that a pull leaves on the store's file system. */
  minFreeBytes: v.number(),
  credentials: v.optional(credentialsSchema),
});

export type PullRequest = v.InferOutput<typeof pullRequestSchema>;

export const pullLineSchema = v.variant("kind", [
  v.object({ kind: v.literal("progress"), message: v.string() }),
  v.object({
    kind: v.literal("result"),
    image: v.object({
      reference: v.string(),
      squashfsPath: v.string(),
      config: imageConfigSchema,
      cached: v.boolean(),
    }),
  }),
  v.object({
    kind: v.literal("error"),
    code: v.string(),
    message: v.string(),
    retryable: v.boolean(),
  }),
]);

export type PullLine = v.InferOutput<typeof pullLineSchema>;

/** Returns the exit status. */
export async function runPullWorker(options: {
  readonly input: NodeJS.ReadableStream;
  readonly output: NodeJS.WritableStream;
  readonly signal: AbortSignal;
}): Promise<number> {
  const say = (line: PullLine): void => void options.output.write(`${JSON.stringify(line)}\n`);
  try {
    const request = v.parse(pullRequestSchema, JSON.parse(await text(options.input)));
    const store = new ImageStore({
      directory: request.directory,
      registries: request.registries,
      minFreeBytes: request.minFreeBytes,
    });
    const image = await store.ensure({
      reference: request.reference,
      forcePull: request.forcePull,
      credentials: request.credentials,
      signal: options.signal,
      onProgress: (message) => say({ kind: "progress", message }),
    });
    say({ kind: "result", image });
    return 0;
  } catch (error) {
    const code = error instanceof DriverError ? error.code : "pull_worker_failed";
    const retryable = error instanceof PullFailedError && error.retryable;
    say({ kind: "error", code, message: reasonOf(error), retryable });
    return 1;
  }
}
