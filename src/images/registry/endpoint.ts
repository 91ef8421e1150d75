// The endpoints that requests for a registry go to: its mirrors in order, then the registry itself.
import * as v from "valibot";
import { InvalidRegistryConfigError } from "../errors.ts";

const registryConfigSchema = v.object({
  /** Base URLs (`http://127.0.0.1:5000`) or `host:port`, tried in this order before the registry itself. */
  mirrors: v.pipe(v.array(v.string()), v.readonly()),
  /** Plain HTTP for the registry and for mirrors given without a scheme; default: only on loopback. */
  plainHttp: v.optional(v.boolean()),
});

/** By the host in the image's name: `docker.io`, `registry.example:5000`. */
export const registryConfigsSchema = v.record(v.string(), registryConfigSchema);
export type RegistryConfigs = Readonly<v.InferOutput<typeof registryConfigsSchema>>;

export interface Endpoint {
  /** Without a trailing slash; `/v2/…` is appended. */
  readonly baseUrl: string;
  /** Its name in messages. */
  readonly place: string;
  /** Credentials belong to the registry that the image names, never to its mirrors. */
  readonly isOrigin: boolean;
}

const hubHost = "docker.io";
const hubEndpoint = "registry-1.docker.io";

/** Fails with InvalidRegistryConfigError for a mirror that is not an http(s) address. */
export function endpointsOf(options: {
  readonly host: string;
  readonly registries: RegistryConfigs;
}): readonly Endpoint[] {
  const { host, registries } = options;
  const config = Object.hasOwn(registries, host) ? registries[host] : undefined;
  const originHost = host === hubHost ? hubEndpoint : host;
  const origin: Endpoint = { baseUrl: withScheme(originHost, config?.plainHttp), place: originHost, isOrigin: true };
  const mirrors = (config?.mirrors ?? []).map((mirror): Endpoint => {
    const baseUrl = checkedMirror(host, mirror, config?.plainHttp);
    return { baseUrl, place: baseUrl.replace(/^https:\/\//, ""), isOrigin: baseUrl === origin.baseUrl };
  });
  return [...mirrors.filter((mirror) => !mirror.isOrigin), origin];
}

function checkedMirror(host: string, mirror: string, plainHttp: boolean | undefined): string {
  try {
    const url = new URL(/^[a-z][a-z0-9+.-]*:\/\//i.test(mirror) ? mirror : withScheme(mirror, plainHttp));
    if (url.protocol !== "http:" && url.protocol !== "https:") {
      throw new InvalidRegistryConfigError({ host, mirror, problem: "is neither http nor https" });
    }
    if (url.username !== "" || url.password !== "" || url.search !== "" || url.hash !== "") {
      throw new InvalidRegistryConfigError({
        host,
        mirror: url.host,
        problem: "has more than scheme, host, port and path",
      });
    }
    return `${url.origin}${url.pathname}`.replace(/\/+$/, "");
  } catch (cause) {
    throw cause instanceof InvalidRegistryConfigError
      ? cause
      : new InvalidRegistryConfigError({ host, mirror, problem: "is not an address", cause });
  }
}

function withScheme(host: string, plainHttp: boolean | undefined): string {
  return `${(plainHttp ?? isLoopback(host)) ? "http" : "https"}://${host}`;
}

/** Docker, too, speaks plain HTTP to registries on loopback by default. */
function isLoopback(host: string): boolean {
  return /^(?:localhost|127\.\d+\.\d+\.\d+|\[::1\])(?::\d+)?(?:\/|$)/.test(host);
}
