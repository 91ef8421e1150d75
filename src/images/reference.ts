// Docker's reference grammar (distribution/reference): `[host[:port]/]path[:tag][@algorithm:hex]`. The first part is a
// host only if it has a dot or a colon or is `localhost`; without one it is Docker Hub, where one-part names live below
// `library/`. A name may have both tag and digest; the digest then decides.
import { InvalidReferenceError } from "./errors.ts";

export interface ImageReference {
  /** `docker.io`, `registry.example:5000`; the name, not where requests go. */
  readonly host: string;
  readonly repository: string;
  /** `latest` if neither tag nor digest was given. */
  readonly tag: string | undefined;
  readonly digest: string | undefined;
}

const defaultHost = "docker.io";
const legacyDefaultHost = "index.docker.io";
const maxNameChars = 255;
const hostPattern =
  /^(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*|\[[a-fA-F0-9:]+\])(?::[0-9]{1,5})?$/;
const pathPartPattern = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const tagPattern = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/;
const digestPattern = /^sha256:[a-f0-9]{64}$/;

/** Fails with InvalidReferenceError. */
export function parseReference(reference: string): ImageReference {
  const fail = (problem: string): never => {
    throw new InvalidReferenceError({ reference, problem });
  };
  if (reference === "") fail("it is empty");
  if (/^[a-z]+:\/\//i.test(reference)) fail("a URL scheme is not part of it");
  const at = reference.indexOf("@");
  const digest = at === -1 ? undefined : reference.slice(at + 1);
  const named = at === -1 ? reference : reference.slice(0, at);
  if (digest !== undefined && !digestPattern.test(digest)) {
    fail("the digest is not sha256: and 64 lower-case hex digits");
  }
  const colon = named.indexOf(":", named.lastIndexOf("/") + 1);
  const tag = colon === -1 ? undefined : named.slice(colon + 1);
  const name = colon === -1 ? named : named.slice(0, colon);
  if (tag !== undefined && !tagPattern.test(tag)) fail("the tag is not 1 to 128 letters, digits, '_', '.' or '-'");
  const { host, path } = splitHost(name);
  if (!hostPattern.test(host)) fail("the registry's host name is malformed");
  if (path === "") fail("there is no repository name");
  for (const part of path.split("/")) {
    if (!pathPartPattern.test(part)) {
      fail(/[A-Z]/.test(part) ? "the repository name must be lower case" : "the repository name is malformed");
    }
  }
  const isHub = host === defaultHost || host === legacyDefaultHost;
  const parsed: ImageReference = {
    host: isHub ? defaultHost : host,
    repository: isHub && !path.includes("/") ? `library/${path}` : path,
    tag: tag ?? (digest === undefined ? "latest" : undefined),
    digest,
  };
  if (`${parsed.host}/${parsed.repository}`.length > maxNameChars) {
    fail(`the name is longer than ${maxNameChars} characters`);
  }
  return parsed;
}

/** The one spelling of a reference: host, repository, tag and digest, as far as there are any. */
export function formatReference(reference: ImageReference): string {
  const tag = reference.tag === undefined ? "" : `:${reference.tag}`;
  const digest = reference.digest === undefined ? "" : `@${reference.digest}`;
  return `${reference.host}/${reference.repository}${tag}${digest}`;
}

function splitHost(name: string): { readonly host: string; readonly path: string } {
  const slash = name.indexOf("/");
  const first = slash === -1 ? "" : name.slice(0, slash);
  if (slash === 0 || /[.:]/.test(first) || first === "localhost") return { host: first, path: name.slice(slash + 1) };
  return { host: defaultHost, path: name };
}
