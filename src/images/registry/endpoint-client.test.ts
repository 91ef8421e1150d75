import assert from "node:assert/strict";
import { test } from "node:test";
import { type Answer, LoopbackServer, type SeenRequest } from "../../../test/fakes/loopback-server.ts";
import { RegistryRequestError } from "../errors.ts";
import { EndpointClient } from "./endpoint-client.ts";
import { RegistryPolicy } from "./registry-policy.ts";

const policy = new RegistryPolicy({ rules: { allowed: ["*", "127.0.0.1"], denied: [] }, registries: {} });

const credentials = { username: "user", password: "secret" };
const basic = `Basic ${Buffer.from("user:secret").toString("base64")}`;

function clientOf(server: LoopbackServer, options: { readonly isOrigin?: boolean } = {}): EndpointClient {
  const { isOrigin = true } = options;
  return new EndpointClient({
    endpoint: { baseUrl: server.url, place: server.address, isOrigin },
    repository: "team/app",
    credentials,
    policy,
    signal: new AbortController().signal,
  });
}

async function textOf(client: EndpointClient, path: string): Promise<string> {
  return (await client.small({ path, maxBytes: 1000 })).toString();
}

/** A registry that takes one token at a time, and the server that gives it out; `revoke` makes it the next one. */
async function tokenRegistry(
  content: (request: SeenRequest) => Answer | undefined = ({ path }) => ({ body: `content of ${path}` }),
): Promise<AsyncDisposable & { registry: LoopbackServer; tokens: LoopbackServer; revoke: () => void }> {
  let valid = 1;
  const tokens = await LoopbackServer.start(() => ({ body: JSON.stringify({ token: `token-${valid}` }) }));
  const challenge: Answer = { status: 401, headers: { "www-authenticate": `Bearer realm="${tokens.url}/token"` } };
  const registry = await LoopbackServer.start((request) =>
    request.authorization === `Bearer token-${valid}` ? content(request) : challenge,
  );
  return {
    registry,
    tokens,
    revoke: () => {
      valid += 1;
    },
    [Symbol.asyncDispose]: async () => {
      await registry[Symbol.asyncDispose]();
      await tokens[Symbol.asyncDispose]();
    },
  };
}

test("one token serves all requests; when the registry no longer takes it, another is fetched", async () => {
  await using servers = await tokenRegistry();
  const client = clientOf(servers.registry);
  assert.equal(await textOf(client, "manifests/v1"), "content of /v2/team/app/manifests/v1");
  await textOf(client, "blobs/a");
  assert.deepEqual(servers.registry.authorizations(), ["", "Bearer token-1", "Bearer token-1"]);
  servers.revoke();
  await textOf(client, "blobs/b");
  await textOf(client, "blobs/c");
  assert.deepEqual(servers.registry.authorizations().slice(3), ["Bearer token-1", "Bearer token-2", "Bearer token-2"]);
  assert.deepEqual(servers.tokens.authorizations(), [basic, basic]);
  assert.equal(servers.tokens.requests[0]?.query.get("scope"), "repository:team/app:pull");
});

test("a registry that takes no token ends the request: one try, no loop", async () => {
  await using tokens = await LoopbackServer.start(() => ({ body: '{"token":"useless"}' }));
  const headers = { "www-authenticate": `Bearer realm="${tokens.url}/token"` };
  await using registry = await LoopbackServer.start(() => ({ status: 401, headers }));
  await assert.rejects(textOf(clientOf(registry), "manifests/v1"), (error) => {
    assert.ok(error instanceof RegistryRequestError);
    assert.equal(error.text, `${registry.address}: authentication required (401)`);
    assert.match(error.cure ?? "", /check the task's auth block/);
    return true;
  });
  assert.deepEqual([registry.requests.length, tokens.requests.length], [2, 1]);
});

test("challenges in headers of their own are all seen", async () => {
  await using registry = await LoopbackServer.start(({ authorization }) =>
    authorization === basic
      ? { body: "content" }
      : { status: 401, headers: { "www-authenticate": ["Negotiate", 'Basic realm="a, b"'] } },
  );
  assert.equal(await textOf(clientOf(registry), "manifests/v1"), "content");
});

test("the registry's credentials are not for its mirrors, whatever they ask for", async () => {
  await using servers = await tokenRegistry();
  await textOf(clientOf(servers.registry, { isOrigin: false }), "manifests/v1");
  assert.deepEqual(servers.tokens.authorizations(), [""]);
  await using mirror = await LoopbackServer.start(() => ({
    status: 401,
    headers: { "www-authenticate": 'Basic realm="mirror"' },
  }));
  await assert.rejects(textOf(clientOf(mirror, { isOrigin: false }), "manifests/v1"), /authentication required/);
  assert.deepEqual(mirror.authorizations(), [""]);
});

test("a blob store that the registry redirects to sees no authorization; the registry's own addresses do", async () => {
  await using store = await LoopbackServer.start(() => ({ body: "bytes" }));
  await using servers = await tokenRegistry(({ path }) => ({
    status: 307,
    headers: { location: path.includes("/own/") ? `${store.url}/stored` : "/own/blob" },
  }));
  assert.equal(await textOf(clientOf(servers.registry), "blobs/a"), "bytes");
  assert.deepEqual(store.authorizations(), [""]);
  assert.deepEqual(servers.registry.authorizations("/own/blob"), ["Bearer token-1"]);
});

test("a blob store can't call for the registry's credentials", async () => {
  await using thief = await LoopbackServer.start(() => ({ body: '{"token":"t"}' }));
  await using store = await LoopbackServer.start(() => ({
    status: 401,
    headers: { "www-authenticate": `Bearer realm="${thief.url}/token"` },
  }));
  await using registry = await LoopbackServer.start(() => ({
    status: 307,
    headers: { location: `${store.url}/stored` },
  }));
  await assert.rejects(textOf(clientOf(registry), "blobs/a"), /authentication required \(401\)/);
  assert.deepEqual(thief.requests, []);
  assert.deepEqual(store.authorizations(), [""]);
});

test("endless redirects, and one to an address that is not a web server's", async () => {
  await using registry = await LoopbackServer.start(({ path }) => ({
    status: 302,
    headers: { location: path.endsWith("loop") ? path : "file:///etc/passwd" },
  }));
  await assert.rejects(textOf(clientOf(registry), "blobs/loop"), /more than 5 redirects/);
  await assert.rejects(textOf(clientOf(registry), "blobs/file"), /malformed or not secure/);
});

test("a document over its size limit is not taken into memory", async () => {
  await using registry = await LoopbackServer.start(() => ({ body: "x".repeat(1001) }));
  await assert.rejects(textOf(clientOf(registry), "manifests/v1"), /more than 1000 bytes/);
});
