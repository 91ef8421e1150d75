// A token server for Debian's docker-registry (distribution's "Token Authentication Specification"): on loopback, one user, and
// anybody may pull what is public. Tokens are JWTs, signed by a certificate of its own that the registry is told to trust.
import "reflect-metadata";
import { randomUUID } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as x509 from "@peculiar/x509";

export interface TokenServerOptions {
  readonly username: string;
  readonly password: string;
  /** What anybody may pull. */
  readonly isPublic: (repository: string) => boolean;
}

interface Access {
  readonly type: string;
  readonly name: string;
  readonly actions: readonly string[];
}

const service = "e2e-registry";
const issuer = "e2e-token-server";
/** What JWTs call ES256. */
const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;
const lifetimeMs = 5 * 60_000;

export class TokenServer implements AsyncDisposable {
  readonly #server = createServer((request, response) => void this.#answer(request, response));
  readonly #options: TokenServerOptions;
  readonly #signingKey: CryptoKey;
  readonly #certificate: x509.X509Certificate;
  readonly #directory: string;

  private constructor(fields: {
    options: TokenServerOptions;
    signingKey: CryptoKey;
    certificate: x509.X509Certificate;
    directory: string;
  }) {
    this.#options = fields.options;
    this.#signingKey = fields.signingKey;
    this.#certificate = fields.certificate;
    this.#directory = fields.directory;
  }

  static async start(options: TokenServerOptions): Promise<TokenServer> {
    const keys = await crypto.subtle.generateKey(algorithm, false, ["sign", "verify"]);
    const certificate = await x509.X509CertificateGenerator.createSelfSigned({
      name: `CN=${issuer}`,
      notBefore: new Date(Date.now() - lifetimeMs),
      notAfter: new Date(Date.now() + 24 * 60 * 60_000),
      signingAlgorithm: algorithm,
      keys,
    });
    const directory = await mkdtemp(join(tmpdir(), "lge2e-tokens-"));
    const server = new TokenServer({ options, signingKey: keys.privateKey, certificate, directory });
    await writeFile(server.#certificatePath, certificate.toString("pem"));
    await new Promise<void>((resolve) => server.#server.listen(0, "127.0.0.1", resolve));
    return server;
  }

  /** host:port */
  get address(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** For `Registry.start`: a registry that takes this server's tokens, and nothing else. */
  get registrySettings(): string {
    const token = {
      realm: `http://${this.address}/token`,
      service,
      issuer,
      rootcertbundle: this.#certificatePath,
    };
    return `auth: ${JSON.stringify({ token })}`;
  }

  get #certificatePath(): string {
    return join(this.#directory, "certificate.pem");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
    await rm(this.#directory, { recursive: true });
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { username, password, isPublic } = this.#options;
    const expected = `Basic ${Buffer.from(`${username}:${password}`).toString("base64")}`;
    const { authorization } = request.headers;
    const { searchParams } = new URL(request.url ?? "", `http://${this.address}`);
    if ((authorization !== undefined && authorization !== expected) || searchParams.get("service") !== service) {
      response.writeHead(401, { "content-type": "application/json" });
      response.end(JSON.stringify({ errors: [{ code: "UNAUTHORIZED", message: "incorrect username or password" }] }));
      return;
    }
    const scopes = searchParams.getAll("scope").flatMap((scope) => scope.split(" "));
    const access = scopes.map((scope): Access => {
      const [type = "", name = "", actions = ""] = scope.split(":");
      const asked = actions.split(",");
      // Who asks for too much gets less, not an error, as from registries in the wild: the registry then says no.
      const forAnybody = isPublic(name) ? asked.filter((action) => action === "pull") : [];
      return { type, name, actions: authorization === undefined ? forAnybody : asked };
    });
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify({ token: await this.#token(access), expires_in: lifetimeMs / 1000 }));
  }

  async #token(access: readonly Access[]): Promise<string> {
    const seconds = Math.floor(Date.now() / 1000);
    const header = { typ: "JWT", alg: "ES256", x5c: [this.#certificate.toString("base64")] };
    const claims = {
      iss: issuer,
      sub: "e2e",
      aud: service,
      iat: seconds,
      nbf: seconds,
      exp: seconds + lifetimeMs / 1000,
      jti: randomUUID(),
      access,
    };
    const signed = [header, claims].map((part) => Buffer.from(JSON.stringify(part)).toString("base64url")).join(".");
    // WebCrypto's form of the signature is the JWT's: both numbers one after the other.
    const signature = await crypto.subtle.sign(algorithm, this.#signingKey, Buffer.from(signed));
    return `${signed}.${Buffer.from(signature).toString("base64url")}`;
  }
}
