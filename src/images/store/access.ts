// Decides who may use the store's content. Content came from an origin (`host/repository`), for anybody or for a job's credentials.
// A manifest of another origin may name the same layers without having them: its job then has to show that its registry
// gives them.
import { randomBytes, scrypt, timingSafeEqual } from "node:crypto";
import { readFile } from "node:fs/promises";
import { promisify } from "node:util";
import * as v from "valibot";
import type { Credentials } from "../registry/authenticator.ts";
import type { StoreFiles } from "./store-files.ts";

const maxOrigins = 256;
const maxProofs = 16;
/** So long a registry's word holds for the same credentials. */
export const proofLifetimeMs = 15 * 60_000;

const contentAccessSchema = v.object({
  /** A registry gave it without credentials. */
  isPublic: v.boolean(),
  origins: v.array(v.string()),
  /** The blobs that unpacked to a chain's layers; undefined for a blob. */
  blobs: v.optional(v.array(v.string())),
});
export type ContentAccess = v.InferOutput<typeof contentAccessSchema>;

/** Undefined if nobody fetched it yet. */
export async function readAccess(files: StoreFiles, digest: string): Promise<ContentAccess | undefined> {
  try {
    return v.parse(contentAccessSchema, JSON.parse(await readFile(files.access(digest), "utf8")));
  } catch {
    return undefined;
  }
}

export function mayUse(access: ContentAccess | undefined, origin: string): boolean {
  return access !== undefined && (access.isPublic || access.origins.includes(origin));
}

/** Notes that the origin gave the content. */
export async function grantAccess(
  files: StoreFiles,
  digest: string,
  grant: { readonly origin: string; readonly isPublic: boolean; readonly blobs?: readonly string[] },
): Promise<void> {
  const known = await readAccess(files, digest);
  const others = (known?.origins ?? []).filter((origin) => origin !== grant.origin).slice(1 - maxOrigins);
  const blobs = grant.blobs ?? known?.blobs;
  const access: ContentAccess = {
    isPublic: grant.isPublic || known?.isPublic === true,
    origins: [...others, grant.origin],
    ...(blobs === undefined ? {} : { blobs: [...blobs] }),
  };
  await files.write(files.access(digest), JSON.stringify(access));
}

/** The credentials that a registry accepted for a name, as salted hashes. */
export const nameAccessSchema = v.object({
  isPublic: v.boolean(),
  proofs: v.array(v.object({ salt: v.string(), hash: v.string(), at: v.number() })),
});
export type NameAccess = v.InferOutput<typeof nameAccessSchema>;

const derive = promisify(scrypt) as (
  secret: string,
  salt: Buffer,
  sizeBytes: number,
  options: { N: number },
) => Promise<Buffer>;
/** Some 10 ms; the store's directory is closed to all but root anyway. */
const scryptCost = { N: 4096 };
const hashBytes = 32;

async function hashOf(credentials: Credentials, salt: Buffer): Promise<Buffer> {
  return await derive(JSON.stringify([credentials.username, credentials.password]), salt, hashBytes, scryptCost);
}

/** When the registry last accepted these credentials for the name, in milliseconds since 1970; undefined: never. */
export async function provenAt(access: NameAccess, credentials: Credentials | undefined): Promise<number | undefined> {
  if (credentials === undefined) return undefined;
  for (const { salt, hash, at } of access.proofs) {
    const known = Buffer.from(hash, "hex");
    const actual = await hashOf(credentials, Buffer.from(salt, "hex"));
    if (known.length === actual.length && timingSafeEqual(known, actual)) return at;
  }
  return undefined;
}

/** The name's access after its registry gave it to these credentials. */
export async function withProof(
  access: NameAccess | undefined,
  options: { readonly credentials: Credentials | undefined; readonly usedCredentials: boolean; readonly now: number },
): Promise<NameAccess> {
  const { credentials, usedCredentials, now } = options;
  const proofs = access?.proofs ?? [];
  if (!usedCredentials || credentials === undefined) return { isPublic: true, proofs };
  const at = await provenAt({ isPublic: false, proofs }, credentials);
  const others = at === undefined ? proofs : proofs.filter((proof) => proof.at !== at);
  const salt = randomBytes(16);
  const hash = await hashOf(credentials, salt);
  const proof = { salt: salt.toString("hex"), hash: hash.toString("hex"), at: now };
  // The registry wants credentials now, even if the name was open before.
  return { isPublic: false, proofs: [...others, proof].slice(-maxProofs) };
}
