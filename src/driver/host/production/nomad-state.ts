// The settings of this host's Nomad agent, by its HTTP API: /v1/agent/self. Source: Nomad's api/agent.go and command/agent/config.go.
// Address and credentials come from the environment, under the names that Nomad's own command line takes.
import { readFile } from "node:fs/promises";
import { type IncomingMessage, request as plainRequest, type RequestOptions } from "node:http";
import { request as tlsRequest } from "node:https";
import * as v from "valibot";
import { reasonOf } from "../../../system/error.ts";
import { driverName } from "../../../version.ts";

export type NomadState =
  | { readonly reached: true; readonly address: string; readonly agent: NomadAgent }
  /** `refused`: the agent wants a token, so its ACLs are on. */
  | { readonly reached: false; readonly refused: boolean; readonly reason: string };

export interface NomadAgent {
  readonly version: string;
  readonly acl: boolean;
  readonly client: boolean;
  /** By service: HTTP, RPC, Serf. */
  readonly addresses: Readonly<Record<string, string>>;
  readonly ports: Readonly<Record<string, number>>;
  readonly tls: { readonly http: boolean; readonly rpc: boolean; readonly verifiesClients: boolean };
  readonly reservedPorts: string;
  readonly rawExec: boolean;
  /** The config block of this driver, with each block in it as a list; undefined if the agent has none. */
  readonly pluginConfig: Readonly<Record<string, unknown>> | undefined;
}

const timeoutMs = 5_000;
const maxBytes = 8 << 20;

export type Environment = Readonly<Record<string, string | undefined>>;

/** Never fails: a fault is a reason. */
export async function readNomadState(env: Environment): Promise<NomadState> {
  const address = env["NOMAD_ADDR"] || "http://127.0.0.1:4646";
  const failed = (reason: string, refused = false): NomadState => ({ reached: false, refused, reason });
  try {
    const { status, body } = await ask(address, env);
    if (status === 401 || status === 403) {
      const token = env["NOMAD_TOKEN"] ? "the token in NOMAD_TOKEN may not" : "nobody without a token may";
      return failed(`${token} read the settings of the agent at ${address} (agent:read, status ${status})`, true);
    }
    if (status !== 200) return failed(`the agent at ${address} answers with status ${status}`);
    return { reached: true, address, agent: parseAgent(body) };
  } catch (error) {
    return failed(
      `no Nomad agent answers at ${address} (${reasonOf(error)}): set NOMAD_ADDR, and NOMAD_CACERT for TLS`,
    );
  }
}

async function ask(address: string, env: Environment): Promise<{ status: number; body: string }> {
  const path = "/v1/agent/self";
  const options: RequestOptions = {
    headers: env["NOMAD_TOKEN"] ? { "X-Nomad-Token": env["NOMAD_TOKEN"] } : {},
    signal: AbortSignal.timeout(timeoutMs),
  };
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    const send = async (): Promise<void> => {
      const socket = /^unix:(?:\/\/)?(\/.*)/.exec(address)?.[1];
      const url = new URL(path, socket === undefined ? address : "http://localhost");
      const sent =
        url.protocol === "https:"
          ? tlsRequest(url, { ...options, ...(await readCertificates(env)) }, resolve)
          : plainRequest(url, { ...options, ...(socket !== undefined && { socketPath: socket }) }, resolve);
      sent.on("error", reject).end();
    };
    send().catch(reject);
  });
  return { status: response.statusCode ?? 0, body: await readBody(response) };
}

async function readBody(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > maxBytes) throw new Error(`it sends more than ${maxBytes} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}

async function readCertificates(env: Environment): Promise<Record<string, Buffer | string>> {
  const files = { ca: env["NOMAD_CACERT"], cert: env["NOMAD_CLIENT_CERT"], key: env["NOMAD_CLIENT_KEY"] };
  const given = Object.entries(files).filter((entry): entry is [string, string] => Boolean(entry[1]));
  const read = given.map(async ([name, path]) => [name, await readFile(path)] as const);
  const serverName = env["NOMAD_TLS_SERVER_NAME"];
  return { ...Object.fromEntries(await Promise.all(read)), ...(serverName ? { servername: serverName } : {}) };
}

const flag = v.optional(v.nullable(v.boolean()));
const optionalText = v.optional(v.nullable(v.string()));

const agentSchema = v.object({
  config: v.object({
    Version: v.optional(v.object({ Version: v.string() })),
    ACL: v.nullish(v.object({ Enabled: flag })),
    BindAddr: optionalText,
    Addresses: v.nullish(v.record(v.string(), v.nullable(v.string()))),
    Ports: v.nullish(v.record(v.string(), v.number())),
    TLSConfig: v.nullish(v.object({ EnableHTTP: flag, EnableRPC: flag, VerifyHTTPSClient: flag })),
    Client: v.nullish(
      v.object({
        Enabled: flag,
        Options: v.nullish(v.record(v.string(), v.string())),
        Reserved: v.nullish(v.object({ ReservedPorts: optionalText })),
      }),
    ),
    Plugins: v.nullish(v.array(v.object({ Name: v.string(), Config: v.nullish(v.record(v.string(), v.unknown())) }))),
  }),
});

/** `body`: the answer of /v1/agent/self. Fails if it is not one. */
export function parseAgent(body: string): NomadAgent {
  const { config } = v.parse(agentSchema, JSON.parse(body));
  const { Client: client, TLSConfig: tls } = config;
  const plugin = (name: string): Readonly<Record<string, unknown>> | undefined => {
    const found = config.Plugins?.find(({ Name }) => Name === name);
    return found && (found.Config ?? {});
  };
  // The option is the older way, and that of `nomad agent -dev`.
  const option = client?.Options?.["driver.raw_exec.enable"];
  return {
    version: config.Version?.Version ?? "",
    acl: config.ACL?.Enabled ?? false,
    client: client?.Enabled ?? false,
    addresses: Object.fromEntries(
      ["HTTP", "RPC", "Serf"].map((name) => [name, config.Addresses?.[name] || config.BindAddr || "0.0.0.0"]),
    ),
    ports: config.Ports ?? {},
    tls: {
      http: tls?.EnableHTTP ?? false,
      rpc: tls?.EnableRPC ?? false,
      verifiesClients: tls?.VerifyHTTPSClient ?? false,
    },
    reservedPorts: client?.Reserved?.ReservedPorts ?? "",
    rawExec: isTrue(plugin("raw_exec")?.["enabled"]) || isTrue(option),
    pluginConfig: plugin(driverName),
  };
}

const isTrue = (value: unknown): boolean => value === true || value === 1 || value === "1" || value === "true";
