// Turns the network's errors and registries' answers into words that an operator can act on.
import * as v from "valibot";
import { printable, reasonOf } from "../../system/error.ts";
import { RegistryRequestError } from "../errors.ts";

const codeWords: Readonly<Record<string, string>> = {
  ECONNREFUSED: "connection refused",
  ECONNRESET: "connection closed by the registry",
  EHOSTUNREACH: "host unreachable",
  ENETUNREACH: "network unreachable",
  ENOTFOUND: "host name not found",
  EAI_AGAIN: "host name lookup failed for now",
  ETIMEDOUT: "connection timed out",
  EPIPE: "connection closed by the registry",
  ERR_SSL_WRONG_VERSION_NUMBER:
    "it does not speak TLS; set plain_http for this registry if it is meant to be plain HTTP",
  DEPTH_ZERO_SELF_SIGNED_CERT: "its certificate is self-signed",
  SELF_SIGNED_CERT_IN_CHAIN: "its certificate chain is self-signed",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: "its certificate cannot be verified",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "its certificate's issuer is unknown",
  CERT_HAS_EXPIRED: "its certificate has expired",
};
const transientCodes = new Set(["ECONNRESET", "EAI_AGAIN", "EPIPE", "ETIMEDOUT"]);
const maxCauses = 8;

/** The first system error code in the chain of causes, including those of a tried list of addresses. */
export function networkCode(error: unknown): string | undefined {
  const queue: unknown[] = [error];
  for (let seen = 0; seen < maxCauses && queue.length > 0; seen++) {
    const current = queue.shift();
    if (!(current instanceof Error)) continue;
    if ("code" in current && typeof current.code === "string") return current.code;
    queue.push(current.cause, ...(current instanceof AggregateError ? current.errors : []));
  }
  return undefined;
}

export function describeNetworkError(error: unknown): string {
  const code = networkCode(error);
  if (code !== undefined) return `${codeWords[code] ?? "request failed"} (${code})`;
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  return `request failed: ${printable(reasonOf(cause), 200)}`;
}

export function isTransient(error: unknown): boolean {
  return transientCodes.has(networkCode(error) ?? "");
}

/** OCI distribution spec, "Error Codes". */
const errorBodySchema = v.object({
  errors: v.array(v.object({ code: v.optional(v.string()), message: v.optional(v.string()) })),
});

function describeStatus(status: number, body: string): string {
  let said = "";
  try {
    const first = v.parse(errorBodySchema, JSON.parse(body)).errors[0];
    said = first?.message || first?.code || "";
  } catch {
    // Proxies answer with pages of HTML: the status alone says more.
  }
  const words = said === "" ? (statusWords[status] ?? "unexpected answer") : printable(said, 200);
  return `${words} (${status})`;
}

const statusWords: Readonly<Record<number, string>> = {
  401: "authentication required",
  403: "access denied",
  404: "not found",
  429: "too many requests",
  500: "internal server error",
  502: "bad gateway",
  503: "service unavailable",
  504: "gateway timeout",
};

/** A registry's or a token server's unwanted answer. */
export function refusal(facts: {
  readonly place: string;
  readonly status: number;
  readonly body: Buffer;
  readonly hasCredentials: boolean;
}): RegistryRequestError {
  const { place, status } = facts;
  return new RegistryRequestError({
    place,
    status,
    problem: describeStatus(status, facts.body.toString("utf8")),
    cure: cureFor(facts),
  });
}

/** The operator's remedy for a status or an error code, if there is one. */
export function cureFor(facts: {
  readonly status?: number | undefined;
  readonly code?: string | undefined;
  readonly hasCredentials: boolean;
}): string | undefined {
  switch (facts.status) {
    case 401:
    case 403:
      return facts.hasCredentials
        ? "check the task's auth block, or the image's name (registries refuse what does not exist)"
        : "set the task's auth block if the image is private, or check its name (registries refuse what does not exist)";
    case 404:
      return "check the image's name and tag";
    case 429:
      return "wait, set the task's auth block, or use a mirror";
    default:
  }
  switch (facts.code) {
    case "ECONNREFUSED":
    case "EHOSTUNREACH":
    case "ENETUNREACH":
    case "ENOTFOUND":
    case "EAI_AGAIN":
    case "ETIMEDOUT":
      return "check that this host can reach the registry, or name a mirror in the plugin's registry block";
    default:
      return undefined;
  }
}
