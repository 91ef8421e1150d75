import assert from "node:assert/strict";
import { link, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { gzipSync } from "node:zlib";
import { answersOf, type FakeImage, fakeImage, layerOf } from "../../../test/fakes/fake-image.ts";
import { type Answer, type Answers, LoopbackServer } from "../../../test/fakes/loopback-server.ts";
import { DriverError } from "../../system/error.ts";
import { sha256 } from "../digest.ts";
import { ImageStore, type ResolvedImage } from "./image-store.ts";
import { StoreFiles } from "./store-files.ts";

let root: string;
before(async () => {
  root = await mkdtemp(join(tmpdir(), "litegix-store-"));
});
after(() => rm(root, { recursive: true }));

const freshDirectory = (): Promise<string> => mkdtemp(join(root, "store-"));

const layer = layerOf({ path: "f", body: "content of the layer" });
const image = fakeImage({ layers: [layer] });

function ensure(
  registry: LoopbackServer,
  options: {
    readonly directory: string;
    readonly name?: string;
    readonly mksquashfsPath?: string;
    readonly minFreeBytes?: number;
  },
): Promise<ResolvedImage> {
  const { directory, mksquashfsPath, minFreeBytes } = options;
  const store = new ImageStore({
    directory,
    minFreeBytes,
    registries: {},
    rules: { allowed: ["*", "127.0.0.1"], denied: [] },
    ...(mksquashfsPath === undefined ? {} : { mksquashfsPath }),
  });
  const reference = `${registry.address}/${options.name ?? "team/app:v1"}`;
  return store.ensure({ reference, forcePull: false, signal: new AbortController().signal });
}

/** All files of the store by their folders; a blob whose content does not match its name fails the test. */
async function contentsOf(directory: string): Promise<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const folder of ["blobs/sha256", "squashfs", "refs", "tmp"]) {
    const names = await readdir(join(directory, folder));
    counts[folder] = names.length;
    for (const name of folder === "blobs/sha256" ? names : []) {
      assert.equal(sha256(await readFile(join(directory, folder, name))), `sha256:${name}`);
    }
  }
  return counts;
}

/** A pull from a registry that lies fails naming the digest; one from the honest registry into the same store succeeds. */
async function assertRefused(options: {
  readonly image?: FakeImage;
  readonly lie?: Answer;
  readonly digest: string;
  readonly problem: RegExp;
}): Promise<void> {
  const directory = await freshDirectory();
  const path = `blobs/${sha256(layer)}`;
  const lies = options.lie === undefined ? {} : { [path]: options.lie };
  await using liar = await LoopbackServer.start(answersOf({ "team/app:v1": options.image ?? image }, lies));
  await assert.rejects(ensure(liar, { directory }), (error) => {
    assert.ok(error instanceof DriverError, String(error));
    assert.match(error.message, options.problem);
    assert.ok(error.message.includes(options.digest), error.message);
    return true;
  });
  assert.deepEqual(await contentsOf(directory), {
    "blobs/sha256": 0,
    squashfs: 0,
    refs: 0,
    tmp: 0,
  });
  await using honest = await LoopbackServer.start(answersOf({ "team/app:v1": image }));
  assert.equal((await ensure(honest, { directory })).cached, false);
}

test("a layer whose bytes were altered", async () => {
  const body = Buffer.from(layer);
  body.write("altered", 512);
  await assertRefused({ lie: { body }, digest: sha256(layer), problem: /should have digest .* but has sha256:/ });
});

test("a layer that is truncated", async () => {
  const body = layer.subarray(0, 700);
  await assertRefused({ lie: { body }, digest: sha256(layer), problem: /sent only 700 of its 2048 bytes/ });
});

test("a layer that is longer than the manifest says", async () => {
  const body = Buffer.concat([layer, Buffer.alloc(1)]);
  await assertRefused({ lie: { body }, digest: sha256(layer), problem: /sent more than its 2048 bytes/ });
});

test("a layer whose transfer breaks off every time", async () => {
  const lie = { body: layer.subarray(0, 700), breakOff: true };
  await assertRefused({ lie, digest: sha256(layer), problem: /connection closed/ });
});

test("a layer whose transfer breaks off once is fetched again", async () => {
  const documents = answersOf({ "team/app:v1": image });
  let breaks = 1;
  const answers: Answers = (request) => {
    if (!request.path.endsWith(sha256(layer)) || breaks-- <= 0) return documents(request);
    return { body: layer.subarray(0, 700), breakOff: true };
  };
  await using registry = await LoopbackServer.start(answers);
  const directory = await freshDirectory();
  assert.equal((await ensure(registry, { directory })).cached, false);
  assert.deepEqual(await contentsOf(directory), { "blobs/sha256": 1, squashfs: 1, refs: 1, tmp: 0 });
});

test("a layer that unpacks to other content than the config's diffID", async () => {
  const diffId = sha256("something else");
  for (const blob of [layer, gzipSync(layer)]) {
    await assertRefused({
      image: fakeImage({ layers: [blob], diffIds: [diffId] }),
      digest: sha256(blob),
      problem: new RegExp(`unpacked, should have digest ${diffId} but has ${sha256(layer)}`),
    });
  }
});

test("a layer that was pushed damaged: its digest is right, its compressed data is not", async () => {
  const blob = gzipSync(layer).subarray(0, -20);
  await assertRefused({
    image: fakeImage({ layers: [blob], diffIds: [sha256(layer)] }),
    digest: sha256(blob),
    problem: /compressed data is damaged or truncated/,
  });
});

test("a failed conversion leaves nothing behind, and names the missing program or the converter's error", async () => {
  // More than a pipe holds: the converter ends while there is still something to write.
  const large = fakeImage({ layers: [layerOf({ path: "f", body: Buffer.alloc(1 << 20) })] });
  await using registry = await LoopbackServer.start(answersOf({ "team/app:v1": image, "team/large:v1": large }));
  const directory = await freshDirectory();
  const dying = join(directory, "dying");
  await writeFile(dying, '#!/bin/sh\necho half > "$2"\necho "No space left" >&2\nexit 3\n', { mode: 0o755 });
  for (const name of ["team/app:v1", "team/large:v1"]) {
    const missing = ensure(registry, { directory, name, mksquashfsPath: join(directory, "missing") });
    await assert.rejects(missing, /can't convert .*no such program.*apt install squashfs-tools/);
    const failed = ensure(registry, { directory, name, mksquashfsPath: dying });
    await assert.rejects(failed, /can't convert .*failed with status 3: No space left/);
  }
  assert.deepEqual(await contentsOf(directory), { "blobs/sha256": 2, squashfs: 0, refs: 0, tmp: 0 });
});

test("a layer that is damaged on the disk fails one start; the next one pulls it again", async () => {
  await using registry = await LoopbackServer.start(answersOf({ "team/app:v1": image }));
  const directory = await freshDirectory();
  await assert.rejects(ensure(registry, { directory, mksquashfsPath: "/nonexistent/mksquashfs" }));
  const blob = join(directory, "blobs", sha256(layer).replace(":", "/"));
  assert.deepEqual(await readFile(blob), layer);
  await writeFile(blob, layerOf({ path: "f", body: "something else" }));
  await assert.rejects(ensure(registry, { directory }), /should have digest/);
  assert.equal((await ensure(registry, { directory })).cached, false);
});

test("names and tags whose layers are the same share one squashfs, each with its own config", async () => {
  const upper = layerOf({ path: "g", body: "upper" });
  const images = {
    "team/app:v1": fakeImage({ layers: [layer, upper], cmd: ["one"] }),
    "team/app:v2": fakeImage({ layers: [layer, upper], cmd: ["two"] }),
    // Other blobs, with the same content when unpacked.
    "other/app:zipped": fakeImage({
      layers: [gzipSync(layer), gzipSync(upper)],
      diffIds: [sha256(layer), sha256(upper)],
      cmd: ["three"],
    }),
    "other/app:reversed": fakeImage({ layers: [upper, layer] }),
  };
  await using registry = await LoopbackServer.start(answersOf(images));
  const directory = await freshDirectory();
  const first = await ensure(registry, { directory, name: "team/app:v1" });
  assert.deepEqual([first.cached, first.config.cmd], [false, ["one"]]);
  const blobs = await contentsOf(directory);
  for (const [name, cmd] of [
    ["team/app:v2", "two"],
    ["other/app:zipped", "three"],
  ] as const) {
    // No conversion could succeed, and no layer is fetched.
    const shared = await ensure(registry, { directory, name, mksquashfsPath: "/nonexistent/mksquashfs" });
    assert.deepEqual([shared.cached, shared.config.cmd], [true, [cmd]]);
    assert.equal(shared.squashfsPath, first.squashfsPath);
    assert.equal(shared.reference, `${registry.address}/${name}@${images[name].digest}`);
  }
  assert.deepEqual(await contentsOf(directory), { ...blobs, refs: 3 });
  const reversed = await ensure(registry, { directory, name: "other/app:reversed" });
  assert.equal(reversed.cached, false);
  assert.notEqual(reversed.squashfsPath, first.squashfsPath);
});

test("a second start asks nobody; for `latest` the manifest and the config are asked for, no layer", async () => {
  await using registry = await LoopbackServer.start(answersOf({ "team/app:v1": image, "team/app:latest": image }));
  const directory = await freshDirectory();
  const first = await ensure(registry, { directory });
  const asked = registry.requests.length;
  assert.deepEqual(await ensure(registry, { directory }), { ...first, cached: true });
  assert.equal(registry.requests.length, asked);
  const latest = await ensure(registry, { directory, name: "team/app" });
  assert.deepEqual([latest.cached, latest.squashfsPath], [true, first.squashfsPath]);
  assert.deepEqual(
    registry.requests.slice(asked).map(({ path }) => path),
    ["/v2/team/app/manifests/latest", `/v2/team/app/blobs/${image.configDigest}`],
  );
});

test("two starts of the same image at once convert it once", async () => {
  await using registry = await LoopbackServer.start(answersOf({ "team/app:v1": image }));
  const directory = await freshDirectory();
  const results = await Promise.all([ensure(registry, { directory }), ensure(registry, { directory })]);
  assert.equal(results.filter(({ cached }) => cached).length, 1);
  assert.equal(registry.requests.filter(({ path }) => path.endsWith(sha256(layer))).length, 1);
});

test("a registry that is gone: the stored image is used, unless a pull is forced", async () => {
  const registry = await LoopbackServer.start(answersOf({ "team/app:latest": image }));
  const { address } = registry;
  const directory = await freshDirectory();
  await ensure(registry, { directory, name: "team/app" });
  await registry[Symbol.asyncDispose]();
  const store = new ImageStore({ directory, registries: { [address]: { mirrors: [] } } });
  const told: string[] = [];
  const options = {
    reference: `${address}/team/app`,
    signal: new AbortController().signal,
    onProgress: (message: string) => void told.push(message),
  };
  assert.equal((await store.ensure({ ...options, forcePull: false })).cached, true);
  assert.match(told.join("\n"), /^using the stored image of .*connection refused/);
  await assert.rejects(store.ensure({ ...options, forcePull: true }), /connection refused/);
});

test("a pull that would leave too little space is refused before it begins", async () => {
  await using registry = await LoopbackServer.start(answersOf({ "team/app:v1": image }));
  const directory = await freshDirectory();
  await assert.rejects(ensure(registry, { directory, minFreeBytes: Number.MAX_SAFE_INTEGER }), {
    code: "disk_full",
    message: /too full for image ".*app:v1": it needs 0 MiB, .* must stay so/,
  });
  assert.deepEqual(await contentsOf(directory), { "blobs/sha256": 0, squashfs: 0, refs: 0, tmp: 0 });
});

const userCredentials = { username: "user", password: "secret" };
const basic = `Basic ${Buffer.from("user:secret").toString("base64")}`;

/** A registry that gives its images to the user alone. */
function closedTo(images: Readonly<Record<string, FakeImage>>): Promise<LoopbackServer> {
  const documents = answersOf(images);
  return LoopbackServer.start((request) =>
    request.authorization === basic
      ? documents(request)
      : { status: 401, headers: { "www-authenticate": 'Basic realm="closed"' } },
  );
}

interface Job {
  readonly name?: string;
  readonly credentials?: typeof userCredentials;
  readonly access?: "verify" | "cached";
  readonly now?: () => number;
}

function start(registry: { readonly address: string }, directory: string, job: Job): Promise<ResolvedImage> {
  const { name = "team/app:v1", credentials, ...options } = job;
  const rules = { allowed: ["127.0.0.1"], denied: [] };
  const store = new ImageStore({ directory, registries: {}, rules, ...options });
  const reference = `${registry.address}/${name}`;
  return store.ensure({ reference, forcePull: false, credentials, signal: new AbortController().signal });
}

test("a private image is given to jobs whose credentials its registry takes, and to nobody else", async () => {
  await using registry = await closedTo({ "team/app:v1": image });
  const directory = await freshDirectory();
  const startIt = (job: Job) => start(registry, directory, job);
  assert.equal((await startIt({ credentials: userCredentials })).cached, false);
  await assert.rejects(startIt({}), /authentication required \(401\).*auth block/);
  const wrong = { username: "user", password: "guess" };
  await assert.rejects(startIt({ credentials: wrong }), /authentication required \(401\)/);
  const asked = registry.requests.length;
  assert.equal((await startIt({ credentials: userCredentials })).cached, true);
  assert.equal(registry.requests.length, asked, "the same credentials are not asked again at once");
  const later = () => Date.now() + 16 * 60_000;
  assert.equal((await startIt({ credentials: userCredentials, now: later })).cached, true);
  assert.deepEqual(
    registry.requests.slice(asked).map(({ path }) => path),
    Array.from({ length: 2 }, () => `/v2/team/app/manifests/${image.digest}`),
  );
  assert.equal((await startIt({ access: "cached" })).cached, true);
  for (const name of await readdir(join(directory, "refs"))) {
    assert.doesNotMatch(await readFile(join(directory, "refs", name), "utf8"), /secret|guess/);
  }
});

test("without its registry a private image is given to credentials that worked before only", async () => {
  const registry = await closedTo({ "team/app:v1": image });
  const { address } = registry;
  const directory = await freshDirectory();
  await start({ address }, directory, { credentials: userCredentials });
  await registry[Symbol.asyncDispose]();
  const now = () => Date.now() + 24 * 60 * 60_000;
  assert.equal((await start({ address }, directory, { credentials: userCredentials, now })).cached, true);
  await assert.rejects(start({ address }, directory, { now }), /connection refused/);
});

test("a manifest elsewhere that names a private image's layers gives nothing that it can't bring itself", async () => {
  await using owner = await closedTo({ "team/app:v1": image });
  const directory = await freshDirectory();
  await start(owner, directory, { credentials: userCredentials });
  const own = layerOf({ path: "own", body: "own" });
  const images = {
    "thief/same:v1": image,
    "thief/more:v1": fakeImage({ layers: [layer, own] }),
    // Another blob that claims to unpack to the private layer.
    "thief/claim:v1": fakeImage({ layers: [own], diffIds: [sha256(layer)] }),
  };
  const empty: Answers = (request) =>
    request.path.endsWith(sha256(layer)) ? { status: 404 } : answersOf(images)(request);
  await using thief = await LoopbackServer.start(empty);
  for (const name of ["thief/same:v1", "thief/more:v1"]) {
    await assert.rejects(start(thief, directory, { name }), /not found \(404\)/, name);
  }
  await assert.rejects(start(thief, directory, { name: "thief/claim:v1" }), /should have digest/);
  // Somebody who has the layer gets the same disk.
  await using other = await LoopbackServer.start(answersOf(images));
  assert.equal((await start(other, directory, { name: "thief/same:v1" })).cached, true);
});

test("the registry that gave a layer is believed about its other repositories, without a transfer", async () => {
  await using registry = await closedTo({ "team/app:v1": image, "prod/app:v1": image });
  const directory = await freshDirectory();
  await start(registry, directory, { credentials: userCredentials });
  const asked = registry.requests.length;
  const promoted = await start(registry, directory, { name: "prod/app:v1", credentials: userCredentials });
  assert.equal(promoted.cached, true);
  assert.deepEqual(
    registry.requests.slice(asked).filter(({ path, method }) => method === "GET" && path.endsWith(sha256(layer))),
    [],
  );
});

test("nothing of the scratch directory is taken over but plain files", async () => {
  const directory = await freshDirectory();
  const files = new StoreFiles(directory);
  await files.prepare();
  await using scratch = await files.scratch();
  const secret = join(directory, "secret");
  await writeFile(secret, "secret", { mode: 0o600 });
  const path = join(scratch.path, "image.squashfs");
  for (const make of [() => symlink(secret, path), () => link(secret, path), () => mkdir(path)]) {
    await make();
    await assert.rejects(files.adopt(path, join(directory, "squashfs/taken"), 0o644), /plain file|ELOOP|EISDIR/);
    assert.deepEqual(await readdir(join(directory, "squashfs")), []);
  }
  assert.equal((await stat(secret)).mode & 0o777, 0o600);
});
