// A token server for Debian's docker-registry (distribution's "Token Authentication Specification"): on loopback, with
// one user. Public images need no user. The tokens are JWTs, signed by a certificate of its own that the registry is
// configured to trust.
import { createPrivateKey, type KeyObject, randomUUID, sign, X509Certificate } from "node:crypto";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { run } from "./command.ts";

export interface TokenServerOptions {
  readonly username: string;
  readonly password: string;
  /** Anyone may pull these images. */
  readonly isPublic: (repository: string) => boolean;
}

interface Access {
  readonly type: string;
  readonly name: string;
  readonly actions: readonly string[];
}

const service = "e2e-registry";
const issuer = "e2e-token-server";
const lifetimeMs = 5 * 60_000;
const certificateName = "certificate.pem";

export class TokenServer implements AsyncDisposable {
  readonly #server = createServer((request, response) => this.#answer(request, response));
  readonly #options: TokenServerOptions;
  readonly #signingKey: KeyObject;
  readonly #certificate: X509Certificate;
  readonly #directory: string;

  private constructor(fields: {
    options: TokenServerOptions;
    signingKey: KeyObject;
    certificate: X509Certificate;
    directory: string;
  }) {
    this.#options = fields.options;
    this.#signingKey = fields.signingKey;
    this.#certificate = fields.certificate;
    this.#directory = fields.directory;
  }

  static async start(options: TokenServerOptions): Promise<TokenServer> {
    const directory = await mkdtemp(join(tmpdir(), "lge2e-tokens-"));
    const server = new TokenServer({ options, directory, ...(await createSelfSigned(directory)) });
    await new Promise<void>((resolve) => server.#server.listen(0, "127.0.0.1", resolve));
    return server;
  }

  /** host:port */
  get address(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** For `Registry.start`: a registry that accepts only this server's tokens. */
  get registrySettings(): string {
    const token = {
      realm: `http://${this.address}/token`,
      service,
      issuer,
      rootcertbundle: join(this.#directory, certificateName),
    };
    return `auth: ${JSON.stringify({ token })}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
    await rm(this.#directory, { recursive: true });
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
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
      // A request for too much gets less, not an error, as from public registries. The registry then refuses.
      const forAnybody = isPublic(name) ? asked.filter((action) => action === "pull") : [];
      return { type, name, actions: authorization === undefined ? forAnybody : asked };
    });
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify({ token: this.#token(access), expires_in: lifetimeMs / 1000 }));
  }

  #token(access: readonly Access[]): string {
    const seconds = Math.floor(Date.now() / 1000);
    const header = { typ: "JWT", alg: "ES256", x5c: [this.#certificate.raw.toString("base64")] };
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
    // A JWT carries both numbers of the signature one after the other, not in DER.
    const signature = sign("sha256", Buffer.from(signed), { key: this.#signingKey, dsaEncoding: "ieee-p1363" });
    return `${signed}.${signature.toString("base64url")}`;
  }
}

/** For ES256. Node reads certificates but can't make them; the openssl program can. */
async function createSelfSigned(directory: string): Promise<{ signingKey: KeyObject; certificate: X509Certificate }> {
  const keyPath = join(directory, "key.pem");
  const certificatePath = join(directory, certificateName);
  const { exitCode, stderr } = await run({
    file: "openssl",
    args: [
      ...["req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
      ...["-subj", `/CN=${issuer}`, "-days", "1", "-keyout", keyPath, "-out", certificatePath],
    ],
  });
  if (exitCode !== 0) throw new Error(`openssl made no certificate: ${stderr}`);
  return {
    signingKey: createPrivateKey(await readFile(keyPath)),
    certificate: new X509Certificate(await readFile(certificatePath)),
  };
}
