// Content digests (`sha256:` and hex): computed and checked while the bytes pass by.
import { createHash } from "node:crypto";
import { DigestMismatchError } from "./errors.ts";

export function sha256(data: string | Uint8Array): string {
  return `sha256:${createHash("sha256").update(data).digest("hex")}`;
}

export function digestHex(digest: string): string {
  return digest.slice(digest.indexOf(":") + 1);
}

/** Passes the bytes on. Fails with DigestMismatchError at their end; until then the consumer must not trust them. */
export async function* verified(options: {
  readonly source: AsyncIterable<Uint8Array>;
  readonly what: string;
  readonly digest: string;
}): AsyncGenerator<Uint8Array> {
  const hash = createHash("sha256");
  for await (const chunk of options.source) {
    hash.update(chunk);
    yield chunk;
  }
  const actual = `sha256:${hash.digest("hex")}`;
  if (actual !== options.digest) {
    throw new DigestMismatchError({ what: options.what, expected: options.digest, actual });
  }
}
