import assert from "node:assert/strict";
import { test } from "node:test";
import { answersOf, type FakeImage, fakeImage, layerOf } from "../../../test/fakes/fake-image.ts";
import { type Answers, LoopbackServer } from "../../../test/fakes/loopback-server.ts";
import { sha256 } from "../digest.ts";
import { PullFailedError, UnsupportedImageError } from "../errors.ts";
import { parseReference } from "../reference.ts";
import { RegistryClient } from "./registry-client.ts";
import { RegistryPolicy } from "./registry-policy.ts";

const policy = new RegistryPolicy({ rules: { allowed: ["*", "127.0.0.1"], denied: [] }, registries: {} });

const credentials = { username: "user", password: "secret" };
const basic = `Basic ${Buffer.from("user:secret").toString("base64")}`;

const image = fakeImage({ layers: [layerOf({ path: "f", body: "content" })], cmd: ["run"] });
const other = fakeImage({ layers: [layerOf({ path: "f", body: "other" })] });

function clientFor(
  origin: LoopbackServer,
  options: { readonly name?: string; readonly mirrors?: readonly LoopbackServer[] } = {},
): RegistryClient {
  const name = `${origin.address}/${options.name ?? "team/app:v1"}`;
  return new RegistryClient({
    name,
    reference: parseReference(name),
    registries: { [origin.address]: { mirrors: (options.mirrors ?? []).map(({ url }) => url) } },
    credentials,
    policy,
    signal: new AbortController().signal,
  });
}

function serving(content: FakeImage, lies?: Parameters<typeof answersOf>[1]): Promise<LoopbackServer> {
  return LoopbackServer.start(answersOf({ "team/app:v1": content }, lies));
}

/** The pull's error, which must name the digest. */
function refusal(digest: string, problem: RegExp): (error: unknown) => true {
  return (error) => {
    assert.ok(error instanceof PullFailedError, String(error));
    assert.match(error.message, problem);
    assert.ok(error.message.includes(digest), error.message);
    return true;
  };
}

const manifestOf = ({ documents, digest }: FakeImage): Buffer => documents.get(`manifests/${digest}`) ?? assert.fail();
const altered = (content: Buffer): Buffer => Buffer.from(content.toString("latin1").replace("run", "ran"), "latin1");

test("a tag gives the digest it stands for, the config and the layers", async () => {
  await using registry = await serving(image);
  const remote = await clientFor(registry).resolve();
  assert.equal(remote.digest, image.digest);
  assert.deepEqual(remote.config.cmd, ["run"]);
  assert.deepEqual(
    remote.layers.map(({ descriptor, diffId }) => [descriptor.digest, diffId]),
    image.layerDigests.map((digest) => [digest, digest]),
  );
  assert.match(registry.requests[0]?.accept ?? "", /oci\.image\.index.*docker\.distribution\.manifest\.v2/);
});

test("another manifest than the requested digest's", async () => {
  await using registry = await serving(image, { [`manifests/${image.digest}`]: { body: manifestOf(other) } });
  const client = clientFor(registry, { name: `team/app:v1@${image.digest}` });
  await assert.rejects(client.resolve(), refusal(image.digest, new RegExp(`manifest should have .*${other.digest}`)));
  assert.equal(registry.requests.length, 1);
});

test("the manifest that an index names, and that is another one", async () => {
  const platform = { os: "linux", architecture: "amd64" };
  const index = JSON.stringify({ manifests: [{ digest: image.digest, size: manifestOf(image).length, platform }] });
  let body = manifestOf(image);
  const documents = answersOf({ "team/app:v1": image });
  await using registry = await LoopbackServer.start((request) => {
    if (request.path.endsWith("/manifests/v1")) return { body: index };
    return request.path.endsWith(`/manifests/${image.digest}`) ? { body } : documents(request);
  });
  const remote = await clientFor(registry).resolve();
  assert.deepEqual([remote.digest, remote.manifestDigest], [sha256(index), image.digest]);
  body = manifestOf(other);
  await assert.rejects(clientFor(registry).resolve(), refusal(image.digest, /manifest should have digest/));
});

test("a config that was altered", async () => {
  const path = `blobs/${image.configDigest}`;
  const body = altered(image.documents.get(path) ?? assert.fail());
  await using registry = await serving(image, { [path]: { body } });
  await assert.rejects(clientFor(registry).resolve(), refusal(image.configDigest, /should have digest .* but has/));
});

test("a config that is shorter or longer than the manifest says", async () => {
  const path = `blobs/${image.configDigest}`;
  const config = image.documents.get(path) ?? assert.fail();
  for (const [body, problem] of [
    [config.subarray(1), new RegExp(`sent only ${config.length - 1} of its ${config.length} bytes`)],
    [Buffer.concat([config, Buffer.from(" ")]), new RegExp(`sent more than its ${config.length} bytes`)],
  ] as const) {
    await using registry = await serving(image, { [path]: { body } });
    await assert.rejects(clientFor(registry).resolve(), refusal(image.configDigest, problem));
  }
});

test("a mirror that lies is passed over for the registry itself, which alone sees the credentials", async () => {
  const path = `blobs/${image.configDigest}`;
  const body = altered(image.documents.get(path) ?? assert.fail());
  await using mirror = await serving(image, { [path]: { body } });
  const documents = answersOf({ "team/app:v1": image });
  const closed: Answers = (request) =>
    request.authorization === basic
      ? documents(request)
      : { status: 401, headers: { "www-authenticate": 'Basic realm="registry"' } };
  await using registry = await LoopbackServer.start(closed);
  const remote = await clientFor(registry, { mirrors: [mirror] }).resolve();
  assert.deepEqual(remote.config.cmd, ["run"]);
  assert.deepEqual(mirror.authorizations(), ["", ""]);
  assert.deepEqual(registry.authorizations(), ["", basic]);
});

test("the last to answer is asked first, and if none has it the error lists each answer", async () => {
  await using mirror = await LoopbackServer.start(() => undefined);
  await using registry = await serving(image);
  await clientFor(registry, { mirrors: [mirror] }).resolve();
  assert.deepEqual([mirror.requests.length, registry.requests.length], [1, 2]);
  await assert.rejects(clientFor(registry, { mirrors: [mirror], name: "team/app:v2" }).resolve(), (error) => {
    assert.ok(error instanceof PullFailedError);
    const said = [mirror.url, registry.address].map((place) => `${place}: not found (404)`).join("; ");
    assert.equal(
      error.message,
      `can't pull "${registry.address}/team/app:v2": ${said}; check the image's name and tag (pull_failed)`,
    );
    assert.equal(error.retryable, false);
    return true;
  });
});

test("an image for another platform is the image's fault: no other endpoint is asked", async () => {
  const index = { manifests: [{ digest: image.digest, size: 1, platform: { os: "linux", architecture: "arm64" } }] };
  await using mirror = await LoopbackServer.start(() => ({ body: JSON.stringify(index) }));
  await using registry = await serving(image);
  await assert.rejects(clientFor(registry, { mirrors: [mirror] }).resolve(), (error) => {
    assert.ok(error instanceof UnsupportedImageError);
    assert.match(error.message, /no image for linux\/amd64, only for linux\/arm64/);
    return true;
  });
  assert.deepEqual(registry.requests, []);
});
