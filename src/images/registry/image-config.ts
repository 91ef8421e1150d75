// The image's own configuration (OCI image-spec `config.md`, Docker's the same): how to run it, and its layers' diffIDs.
import * as v from "valibot";
import { printable } from "../../system/error.ts";
import { BadManifestError, UnsupportedImageError } from "../errors.ts";
import { parseAs, parseJson, wantedPlatform } from "./manifest.ts";

const maxKeptChars = 2 ** 20;

const Strings = v.nullish(v.array(v.string()), []);
const Text = v.nullish(v.string(), "");

export const imageConfigSchema = v.object({
  entrypoint: v.array(v.string()),
  cmd: v.array(v.string()),
  /** `NAME=value`. */
  env: v.array(v.string()),
  user: v.string(),
  workingDir: v.string(),
  /** Name or number; empty for SIGTERM. */
  stopSignal: v.string(),
});

export type ImageConfig = v.InferOutput<typeof imageConfigSchema>;

const Document = v.object({
  architecture: Text,
  os: Text,
  config: v.nullish(
    v.object({ Entrypoint: Strings, Cmd: Strings, Env: Strings, User: Text, WorkingDir: Text, StopSignal: Text }),
  ),
  rootfs: v.object({
    diff_ids: v.nullish(v.array(v.pipe(v.string(), v.regex(/^sha256:[a-f0-9]{64}$/, "is not a sha256 digest"))), []),
  }),
});

/** Fails with BadManifestError, or with UnsupportedImageError for another platform. Each layer needs a diffID. */
export function parseImageConfig(options: {
  readonly body: string;
  readonly what: string;
  readonly layerCount: number;
}): { readonly config: ImageConfig; readonly diffIds: readonly string[] } {
  const { body, what, layerCount } = options;
  const raw = parseJson(body, what);
  if (!("rootfs" in raw)) {
    throw new UnsupportedImageError({
      problem: `${what} has no rootfs: this is some other artifact, not a container image`,
    });
  }
  const document = parseAs(Document, raw, what);
  const os = document.os || wantedPlatform.os;
  const architecture = document.architecture || wantedPlatform.architecture;
  if (os !== wantedPlatform.os || architecture !== wantedPlatform.architecture) {
    throw new UnsupportedImageError({
      problem: `the image is for ${printable(`${os}/${architecture}`)}, not for ${wantedPlatform.os}/${wantedPlatform.architecture}`,
    });
  }
  const diffIds = document.rootfs.diff_ids;
  if (diffIds.length !== layerCount) {
    throw new BadManifestError({ what, problem: `it lists ${diffIds.length} diff_ids for ${layerCount} layers` });
  }
  const config = document.config;
  // The driver keeps it in memory; history and labels are gone by here. Linux gives a program's words two MiB.
  if (JSON.stringify(config ?? {}).length > maxKeptChars) {
    throw new BadManifestError({ what, problem: "its command, environment and user have more than 1 MiB" });
  }
  return {
    diffIds,
    config: {
      entrypoint: config?.Entrypoint ?? [],
      cmd: config?.Cmd ?? [],
      env: config?.Env ?? [],
      user: config?.User ?? "",
      workingDir: config?.WorkingDir ?? "",
      stopSignal: config?.StopSignal ?? "",
    },
  };
}
