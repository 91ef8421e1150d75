// An image's manifest, config and layers as a registry serves them. A test may alter any document, for a lying
// registry.
import { sha256 } from "../../src/images/digest.ts";
import { encodeTarHeader } from "../../src/images/tar/encode-tar-header.ts";
import { padding } from "../../src/images/tar/read-tar.ts";
import type { TarHeader } from "../../src/images/tar/tar-entry.ts";
import type { Answer, SeenRequest } from "./loopback-server.ts";

/** The header of an empty file without attributes. */
export const plainHeader: TarHeader = {
  path: "",
  type: "file",
  mode: 0o644,
  uid: 0,
  gid: 0,
  mtime: 0,
  sizeBytes: 0,
  target: "",
  deviceMajor: 0,
  deviceMinor: 0,
  xattrs: [],
};

export type LayerMember = Partial<TarHeader> & { readonly path: string; readonly body?: string | Buffer };

/** A layer as a plain tar archive. */
export function layerOf(...members: readonly LayerMember[]): Buffer {
  const blocks = members.map(({ body = "", ...fields }) => {
    const bytes = Buffer.from(body);
    const header = encodeTarHeader({ ...plainHeader, ...fields, sizeBytes: bytes.length });
    return Buffer.concat([header, bytes, Buffer.alloc(padding(bytes.length))]);
  });
  return Buffer.concat([...blocks, Buffer.alloc(1024)]);
}

export interface FakeImage {
  /** The manifest's digest. */
  readonly digest: string;
  readonly configDigest: string;
  readonly layerDigests: readonly string[];
  /** Keyed by the ends of their paths: `manifests/sha256:…`, `blobs/sha256:…`. */
  readonly documents: ReadonlyMap<string, Buffer>;
}

export function fakeImage(options: {
  readonly layers: readonly Buffer[];
  readonly cmd?: readonly string[];
  /** The diff IDs in the config. Default: the layers' own. */
  readonly diffIds?: readonly string[];
}): FakeImage {
  const { layers } = options;
  const config = Buffer.from(
    JSON.stringify({
      architecture: "amd64",
      os: "linux",
      config: { Cmd: options.cmd ?? [] },
      rootfs: { type: "layers", diff_ids: options.diffIds ?? layers.map(sha256) },
    }),
  );
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: "application/vnd.oci.image.manifest.v1+json",
      config: descriptorOf("application/vnd.oci.image.config.v1+json", config),
      layers: layers.map((layer) => descriptorOf("application/vnd.oci.image.layer.v1.tar", layer)),
    }),
  );
  return {
    digest: sha256(manifest),
    configDigest: sha256(config),
    layerDigests: layers.map(sha256),
    documents: new Map([
      [`manifests/${sha256(manifest)}`, manifest],
      ...[config, ...layers].map((blob): [string, Buffer] => [`blobs/${sha256(blob)}`, blob]),
    ]),
  };
}

/** The answers of a registry with these images, by their names with tags (`team/app:v1`) and by digest. */
export function answersOf(
  images: Readonly<Record<string, FakeImage>>,
  lies: Readonly<Record<string, Answer>> = {},
): (request: SeenRequest) => Answer | undefined {
  const answers = new Map<string, Answer>();
  for (const [name, { digest, documents }] of Object.entries(images)) {
    const [repository = "", tag = ""] = name.split(":");
    for (const [path, body] of documents) {
      const answer = lies[path] ?? { body };
      answers.set(`/v2/${repository}/${path}`, answer);
      if (path.endsWith(digest)) answers.set(`/v2/${repository}/manifests/${tag}`, answer);
    }
  }
  return ({ path }) => answers.get(path);
}

function descriptorOf(mediaType: string, content: Buffer): object {
  return { mediaType, digest: sha256(content), size: content.length };
}
