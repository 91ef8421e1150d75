// Answers a registry's 401: Basic with the credentials, or a bearer token fetched from the realm that the challenge
// names (distribution's token authentication specification). Credentials go nowhere over plain HTTP unless the
// registry itself is plain HTTP by the operator's choice.
import * as v from "valibot";
import { RegistryRequestError } from "../errors.ts";
import { type Challenge, parseChallenges } from "./challenge.ts";
import { refusal } from "./problem.ts";
import type { RegistryPolicy } from "./registry-policy.ts";
import { get, smallBodyOf } from "./request.ts";

export const credentialsSchema = v.object({ username: v.string(), password: v.string() });
export type Credentials = Readonly<v.InferOutput<typeof credentialsSchema>>;

const maxTokenAnswerBytes = 256 * 1024;
/** Printable ASCII: what a header can carry. Empty is like absent: Harbor writes both names and fills one. */
const headerText = v.pipe(v.string(), v.regex(/^[\x21-\x7e]*$/));
const tokenAnswerSchema = v.object({ token: v.nullish(headerText), access_token: v.nullish(headerText) });

/**
 * The Authorization header for the challenge; undefined if the driver can't answer it. Fails with RegistryRequestError
 * if the token server refuses or cannot be reached, and with RegistryAddressError.
 */
export async function authorizationFor(options: {
  readonly header: string;
  readonly baseUrl: string;
  readonly place: string;
  readonly policy: RegistryPolicy;
  readonly scope: string;
  readonly credentials: Credentials | undefined;
  readonly signal: AbortSignal;
}): Promise<string | undefined> {
  const challenges = parseChallenges(options.header);
  const bearer = challenges.find(({ scheme }) => scheme === "bearer");
  if (bearer !== undefined) return await bearerToken(bearer, options);
  const basic = challenges.find(({ scheme }) => scheme === "basic");
  return basic === undefined || options.credentials === undefined ? undefined : basicHeader(options.credentials);
}

async function bearerToken(challenge: Challenge, options: Parameters<typeof authorizationFor>[0]): Promise<string> {
  const { baseUrl, place, policy, credentials, signal } = options;
  const fail = (problem: string, cause?: unknown): RegistryRequestError =>
    new RegistryRequestError({ place, problem, cause });
  const realm = challenge.parameters.get("realm") ?? "";
  if (!URL.canParse(realm)) throw fail("its challenge names no token server");
  const url = new URL(realm);
  const isPlain = url.protocol === "http:" && policy.mayFollowInPlain(new URL(baseUrl), url);
  if (url.protocol !== "https:" && !isPlain) {
    throw fail("its challenge names a token server that is not secure");
  }
  const service = challenge.parameters.get("service");
  if (service !== undefined) url.searchParams.set("service", service);
  url.searchParams.set("scope", challenge.parameters.get("scope") ?? options.scope);
  const tokenPlace = `${place}: token server ${url.host}`;
  const authorization = credentials === undefined ? undefined : basicHeader(credentials);
  const accept = "application/json";
  const response = await get({ url: url.href, place: tokenPlace, policy, authorization, accept, signal });
  const body = await smallBodyOf({ response, place: tokenPlace, signal, maxBytes: maxTokenAnswerBytes });
  if (response.status !== 200) {
    throw refusal({ place: tokenPlace, status: response.status, body, hasCredentials: credentials !== undefined });
  }
  try {
    const answer = v.parse(tokenAnswerSchema, JSON.parse(body.toString("utf8")));
    const token = answer.token || answer.access_token;
    if (token) return `Bearer ${token}`;
  } catch (cause) {
    throw fail(`token server ${url.host} gave a malformed answer`, cause);
  }
  throw fail(`token server ${url.host} gave no token`);
}

function basicHeader({ username, password }: Credentials): string {
  return `Basic ${Buffer.from(`${username}:${password}`, "utf8").toString("base64")}`;
}
