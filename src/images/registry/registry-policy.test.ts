import assert from "node:assert/strict";
import type { LookupAddress } from "node:dns";
import { test } from "node:test";
import fc from "fast-check";
import { LoopbackServer } from "../../../test/fakes/loopback-server.ts";
import { RegistryAddressError, RegistryNotAllowedError } from "../errors.ts";
import type { RegistryConfigs } from "./endpoint.ts";
import { EndpointClient } from "./endpoint-client.ts";
import { isHostPattern, RegistryPolicy } from "./registry-policy.ts";

function policyOf(
  options: {
    readonly allowed?: readonly string[];
    readonly denied?: readonly { network: string; ports?: [number, number] }[];
    readonly registries?: RegistryConfigs;
    /** DNS's answers, by name. */
    readonly names?: Readonly<Record<string, readonly string[]>>;
  } = {},
): RegistryPolicy {
  const { allowed, denied = [], registries = {}, names = {} } = options;
  return new RegistryPolicy({
    rules: { allowed, denied },
    registries,
    ownAddresses: ["192.0.2.7"],
    lookup: (host, _, callback) => {
      const addresses: LookupAddress[] = (names[host] ?? []).map((address) => ({
        address,
        family: address.includes(":") ? 6 : 4,
      }));
      callback(null, addresses);
    },
  });
}

const isAllowed = (policy: RegistryPolicy, host: string): boolean => {
  try {
    policy.requireAllowed(host, `${host}/a/b:1`);
    return true;
  } catch (error) {
    assert.ok(error instanceof RegistryNotAllowedError);
    assert.ok(error.message.includes(host));
    return false;
  }
};

test("by default every registry but this host's own and link-local ones, however they are written", () => {
  const policy = policyOf();
  for (const host of ["docker.io", "ghcr.io", "registry.lan:5000", "10.0.0.5:5000", "192.168.1.1", "[fd00::1]:5000"]) {
    assert.ok(isAllowed(policy, host), host);
  }
  for (const host of [
    ...["127.0.0.1:7777", "127.1:80", "2130706433:80", "0x7f000001:80", "0.0.0.0:80", "localhost:80", "a.localhost"],
    ...["[::1]:80", "[::ffff:127.0.0.1]:80", "[::ffff:7f00:1]:80", "[64:ff9b::7f00:1]:80", "[2002:7f00:1::]:80"],
    ...["169.254.169.254", "[fe80::1]:80", "[64:ff9b::a9fe:a9fe]", "192.0.2.7:4646", "224.0.0.1", "255.255.255.255"],
  ]) {
    assert.ok(!isAllowed(policy, host), host);
  }
});

test("the operator opens what is closed by a name, not by the star", () => {
  assert.ok(!isAllowed(policyOf({ allowed: ["*"] }), "127.0.0.1:5000"));
  assert.ok(isAllowed(policyOf({ allowed: ["127.0.0.1"] }), "127.0.0.1:5000"));
  assert.ok(isAllowed(policyOf({ allowed: ["localhost:5000"] }), "localhost:5000"));
  assert.ok(!isAllowed(policyOf({ allowed: ["127.0.0.1:5000"] }), "127.0.0.1:7777"));
  const registries = { "127.0.0.1:5000": { mirrors: [] } };
  assert.ok(isAllowed(policyOf({ registries }), "127.0.0.1:5000"));
  assert.ok(!isAllowed(policyOf({ registries }), "127.0.0.1:7777"));
  assert.ok(isAllowed(policyOf({ registries, allowed: [] }), "127.0.0.1:5000"));
});

test("a list closes all others", () => {
  const policy = policyOf({ allowed: ["docker.io", "*.Example.com", "registry.lan:5000", "10.0.0.5:*"] });
  for (const host of ["docker.io", "a.example.com", "a.b.example.com:444", "registry.lan:5000", "10.0.0.5:80"]) {
    assert.ok(isAllowed(policy, host), host);
  }
  for (const host of ["ghcr.io", "example.com", "example.com.evil.org", "registry.lan", "10.0.0.6", "notexample.com"]) {
    assert.ok(!isAllowed(policy, host), host);
  }
  assert.ok(!isAllowed(policyOf({ allowed: [] }), "docker.io"));
});

test("networks that VMs are kept from are closed to names too, port by port", () => {
  const denied = [{ network: "10.1.0.0/16" }, { network: "10.2.0.0/16", ports: [22, 443] as [number, number] }];
  const policy = policyOf({ denied });
  assert.deepEqual(
    ["10.1.2.3:5000", "10.2.2.3:443", "10.2.2.3:5000"].map((host) => isAllowed(policy, host)),
    [false, false, true],
  );
  assert.ok(isAllowed(policyOf({ denied, allowed: ["10.1.2.3"] }), "10.1.2.3:5000"));
});

/** The addresses that a connection to the URL may go to. */
async function connectable(policy: RegistryPolicy, url: string): Promise<string[]> {
  const { lookup } = policy.connection(new URL(url), "place");
  return await new Promise((resolve, reject) => {
    lookup(new URL(url).hostname, { all: true }, (error, addresses) => {
      if (error !== null) reject(error);
      else resolve((addresses as LookupAddress[]).map(({ address }) => address));
    });
  });
}

test("addresses are judged after resolution", async () => {
  const names = {
    "inside.example": ["127.0.0.1"],
    "metadata.example": ["169.254.169.254", "fe80::1"],
    "mixed.example": ["::ffff:127.0.0.1", "203.0.113.9"],
    "lan.example": ["10.0.0.5"],
  };
  const policy = policyOf({ names });
  await assert.rejects(connectable(policy, "https://inside.example"), RegistryAddressError);
  await assert.rejects(connectable(policy, "https://metadata.example"), /metadata.example is a link-local address/);
  assert.deepEqual(await connectable(policy, "https://mixed.example"), ["203.0.113.9"]);
  assert.deepEqual(await connectable(policy, "https://lan.example"), ["10.0.0.5"]);
  const open = policyOf({ names, allowed: ["*", "inside.example"] });
  assert.deepEqual(await connectable(open, "https://inside.example"), ["127.0.0.1"]);
});

test("whatever DNS says, no connection goes to this host's loopback or to link-local addresses", async () => {
  const address = fc.oneof(fc.ipV4(), fc.ipV6(), fc.constantFrom("127.0.0.1", "::1", "169.254.169.254", "fe80::2"));
  await fc.assert(
    fc.asyncProperty(fc.array(address, { maxLength: 4 }), async (addresses) => {
      const policy = policyOf({ names: { "a.example": addresses } });
      const reached = await connectable(policy, "https://a.example").catch(() => []);
      for (const each of reached) assert.doesNotMatch(each, /^(?:127\.|0\.|169\.254\.|::1?$|fe[89ab])/i);
    }),
  );
});

test("host patterns", () => {
  for (const text of ["*", "docker.io", "*.example.com", "a:5000", "10.0.0.1:*", "[::1]:80", "localhost"]) {
    assert.ok(isHostPattern(text), text);
  }
  for (const text of ["", "https://a", "a/b", "a.*", "a b", "*a", "a:b"]) assert.ok(!isHostPattern(text), text);
});

test("a redirect and a token server on a closed address are not asked", async () => {
  await using inside = await LoopbackServer.start(() => ({ body: '{"token":"t"}' }));
  const closed = inside.address;
  await using registry = await LoopbackServer.start(({ path }) =>
    path.endsWith("redirected")
      ? { status: 307, headers: { location: `http://${closed}/secret` } }
      : { status: 401, headers: { "www-authenticate": `Bearer realm="http://${closed}/token"` } },
  );
  const client = new EndpointClient({
    endpoint: { baseUrl: registry.url, place: registry.address, isOrigin: true },
    repository: "a/b",
    credentials: undefined,
    policy: policyOf({ registries: { [registry.address]: { mirrors: [] } } }),
    signal: new AbortController().signal,
  });
  for (const path of ["blobs/redirected", "manifests/v1"]) {
    await assert.rejects(client.small({ path, maxBytes: 1000 }), RegistryAddressError);
  }
  assert.deepEqual(inside.requests, []);
});

test("plain HTTP leads only to the same host, or to one that the operator names", () => {
  const policy = policyOf({ registries: { "tokens.lan:80": { mirrors: [] } } });
  const may = (from: string, next: string): boolean => policy.mayFollowInPlain(new URL(from), new URL(next));
  assert.ok(may("http://registry.lan:5000/v2/", "http://registry.lan:5001/token"));
  assert.ok(may("http://registry.lan:5000/v2/", "http://tokens.lan/token"));
  assert.ok(!may("http://registry.lan:5000/v2/", "http://elsewhere.lan/token"));
  assert.ok(!may("https://registry.lan/v2/", "http://registry.lan/token"));
});
