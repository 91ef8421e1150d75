// Manifests and indexes, OCI's and Docker's (image-spec `manifest.md`, `image-index.md`; Docker "Image Manifest V 2,
// Schema 2"), as far as a pull needs them. Anything optional may also be null, as some builders write it.
import * as v from "valibot";
import { printable } from "../../system/error.ts";
import { BadManifestError, UnsupportedImageError } from "../errors.ts";

/** Four times what docker's builders and overlay file systems take. */
const maxLayers = 512;

const Digest = v.pipe(v.string(), v.regex(/^sha256:[a-f0-9]{64}$/, "is not a sha256 digest"));

const Descriptor = v.object({
  mediaType: v.nullish(v.string(), ""),
  digest: Digest,
  size: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
});

const IndexEntry = v.object({
  ...Descriptor.entries,
  platform: v.nullish(
    v.object({
      architecture: v.nullish(v.string(), ""),
      os: v.nullish(v.string(), ""),
      variant: v.nullish(v.string(), ""),
    }),
  ),
});

const Manifest = v.object({ config: Descriptor, layers: v.pipe(v.array(Descriptor), v.maxLength(maxLayers)) });
const Index = v.object({ manifests: v.pipe(v.array(IndexEntry), v.maxLength(65_536)) });

export type BlobDescriptor = v.InferOutput<typeof Descriptor>;
export type ImageManifest = v.InferOutput<typeof Manifest>;
export type IndexDescriptor = v.InferOutput<typeof IndexEntry>;

export const manifestAccept = [
  "application/vnd.oci.image.index.v1+json",
  "application/vnd.docker.distribution.manifest.list.v2+json",
  "application/vnd.oci.image.manifest.v1+json",
  "application/vnd.docker.distribution.manifest.v2+json",
].join(", ");

export const wantedPlatform = { os: "linux", architecture: "amd64" } as const;

export type ManifestOrIndex =
  | { readonly kind: "manifest"; readonly manifest: ImageManifest }
  | { readonly kind: "index"; readonly entries: readonly IndexDescriptor[] };

/**
 * The document's keys tell a manifest from an index; a document that has both is refused, whatever its media type says.
 * Fails with BadManifestError or UnsupportedImageError.
 */
export function parseManifest(body: string, what: string): ManifestOrIndex {
  const document = parseJson(body, what);
  const isIndex = "manifests" in document;
  if (isIndex && ("layers" in document || "config" in document)) {
    throw new BadManifestError({ what, problem: "it is an index and a manifest at once" });
  }
  if ("schemaVersion" in document && document.schemaVersion === 1) {
    throw new UnsupportedImageError({
      problem: `${what} is of the old schema 1; push the image again with a current tool`,
    });
  }
  if (isIndex) return { kind: "index", entries: parseAs(Index, document, what).manifests };
  const manifest = parseAs(Manifest, document, what);
  const encrypted = manifest.layers.find(({ mediaType }) => mediaType.endsWith("+encrypted"));
  if (encrypted !== undefined) {
    throw new UnsupportedImageError({ problem: `${what} has encrypted layers (${printable(encrypted.mediaType)})` });
  }
  return { kind: "manifest", manifest };
}

/** Fails with UnsupportedImageError, which lists the index's platforms. */
export function chooseForPlatform(entries: readonly IndexDescriptor[], what: string): IndexDescriptor {
  const fitting = entries.filter(
    ({ platform }) => platform?.os === wantedPlatform.os && platform.architecture === wantedPlatform.architecture,
  );
  const plain = fitting.find(({ platform }) => platform?.variant === "" || platform?.variant === "v1");
  // Some tools write no platform; the image's config then decides.
  const chosen = plain ?? fitting[0] ?? entries.find(({ platform }) => platform === undefined || platform === null);
  if (chosen === undefined) {
    const offered = entries.map(({ platform }) => `${platform?.os ?? ""}/${platform?.architecture ?? ""}`);
    const listed = printable([...new Set(offered)].slice(0, 20).join(", "));
    throw new UnsupportedImageError({
      problem: `${what} has no image for ${wantedPlatform.os}/${wantedPlatform.architecture}, only for ${listed === "" ? "nothing" : listed}`,
    });
  }
  return chosen;
}

export function parseJson(body: string, what: string): object {
  let document: unknown;
  try {
    document = JSON.parse(body);
  } catch (cause) {
    throw new BadManifestError({ what, problem: "it is not JSON", cause });
  }
  if (typeof document !== "object" || document === null || Array.isArray(document)) {
    throw new BadManifestError({ what, problem: "it is not a JSON object" });
  }
  return document;
}

export function parseAs<Schema extends v.GenericSchema>(
  schema: Schema,
  document: object,
  what: string,
): v.InferOutput<Schema> {
  const result = v.safeParse(schema, document);
  if (!result.success) {
    const issue = result.issues[0];
    const path = v.getDotPath(issue);
    throw new BadManifestError({
      what,
      problem: printable(`${path === null ? "" : `${path}: `}${issue.message}`),
    });
  }
  return result.output;
}
