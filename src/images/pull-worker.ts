// The child that pulls: `pullImage` behind lines of JSON. The order comes as the first line of stdin, the host's answers follow;
// questions and progress go out on stdout, and an error or nothing ends them. The parent keeps its event loop free, and
// the memory is freed at the child's end.
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import * as v from "valibot";
import { DriverError, reasonOf } from "../system/error.ts";
import { PullFailedError } from "./errors.ts";
import { type PullHost, pullImage } from "./pull-image.ts";
import { credentialsSchema } from "./registry/authenticator.ts";
import { registryConfigsSchema } from "./registry/endpoint.ts";
import { imageConfigSchema } from "./registry/image-config.ts";
import { registryRulesSchema } from "./registry/registry-policy.ts";

export const pullOrderSchema = v.object({
  scratch: v.string(),
  order: v.object({
    reference: v.string(),
    registries: registryConfigsSchema,
    rules: registryRulesSchema,
    credentials: v.optional(credentialsSchema),
    confirmDigest: v.optional(v.string()),
    mksquashfsPath: v.string(),
    storeDirectory: v.string(),
  }),
});

const digestSchema = v.pipe(v.string(), v.regex(/^sha256:[a-f0-9]{64}$/));
const positionsSchema = v.array(v.pipe(v.number(), v.safeInteger(), v.minValue(0)));

/** The parent's answers to `resolved` and to `fetched`. */
export const pullAnswerSchema = v.variant("kind", [
  v.object({
    kind: v.literal("plan"),
    plan: v.object({ fetch: positionsSchema, prove: positionsSchema, convert: v.boolean() }),
  }),
  v.object({ kind: v.literal("taken") }),
]);
export type PullAnswer = v.InferOutput<typeof pullAnswerSchema>;

/** The parent builds paths from the digests. */
export const pullLineSchema = v.variant("kind", [
  v.object({ kind: v.literal("progress"), message: v.string() }),
  v.object({ kind: v.literal("confirmed"), usedCredentials: v.boolean() }),
  v.object({
    kind: v.literal("resolved"),
    usedCredentials: v.boolean(),
    image: v.object({
      digest: digestSchema,
      manifestDigest: digestSchema,
      config: imageConfigSchema,
      layers: v.array(
        v.object({
          descriptor: v.object({ mediaType: v.string(), digest: digestSchema, size: v.number() }),
          diffId: digestSchema,
        }),
      ),
    }),
  }),
  v.object({ kind: v.literal("fetched"), layers: positionsSchema }),
  v.object({ kind: v.literal("done") }),
  v.object({
    kind: v.literal("error"),
    code: v.string(),
    message: v.string(),
    retryable: v.boolean(),
    unreachable: v.boolean(),
  }),
]);
export type PullLine = v.InferInput<typeof pullLineSchema>;

/** Returns the exit status. */
export async function runPullWorker(options: {
  readonly input: Readable;
  readonly output: Writable;
  readonly signal: AbortSignal;
}): Promise<number> {
  const { input, output, signal } = options;
  const say = (line: PullLine): void => void output.write(`${JSON.stringify(line)}\n`);
  const lines = createInterface({ input })[Symbol.asyncIterator]();
  const next = async (): Promise<unknown> => {
    const line = await lines.next();
    if (line.done === true) throw new Error("the driver has gone");
    return JSON.parse(line.value);
  };
  const answer = async <K extends PullAnswer["kind"]>(kind: K): Promise<Extract<PullAnswer, { kind: K }>> => {
    const given = v.parse(pullAnswerSchema, await next());
    if (given.kind !== kind) throw new Error(`the driver answered with ${given.kind}`);
    return given as Extract<PullAnswer, { kind: K }>;
  };
  const host: PullHost = {
    progress: (message) => say({ kind: "progress", message }),
    confirmed: (facts) => say({ kind: "confirmed", ...facts }),
    resolved: async ({ image, usedCredentials }) => {
      const layers = image.layers.map(({ descriptor, diffId }) => ({ descriptor, diffId }));
      say({ kind: "resolved", usedCredentials, image: { ...image, layers } });
      return (await answer("plan")).plan;
    },
    fetched: async (layers) => {
      say({ kind: "fetched", layers: [...layers] });
      await answer("taken");
    },
  };
  try {
    const { order, scratch } = v.parse(pullOrderSchema, await next());
    await pullImage({ order, scratch, host, signal });
    say({ kind: "done" });
    return 0;
  } catch (error) {
    const code = error instanceof DriverError ? error.code : "pull_worker_failed";
    const failure = error instanceof PullFailedError ? error : undefined;
    const { retryable = false, unreachable = false } = failure ?? {};
    say({ kind: "error", code, message: reasonOf(error), retryable, unreachable });
    return 1;
  } finally {
    // An open stdin would keep the process alive.
    input.destroy();
  }
}
