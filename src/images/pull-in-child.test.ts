import assert from "node:assert/strict";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { answersOf, fakeImage, layerOf } from "../../test/fakes/fake-image.ts";
import { LoopbackServer } from "../../test/fakes/loopback-server.ts";
import { DriverError } from "../system/error.ts";
import type { Puller } from "./pull-image.ts";
import { childPuller } from "./pull-in-child.ts";
import { ImageStore, type ResolvedImage } from "./store/image-store.ts";

let root: string;
before(async () => {
  root = await mkdtemp(join(tmpdir(), "litegix-child-"));
});
after(() => rm(root, { recursive: true }));

const worker = childPuller(
  [process.execPath, join(import.meta.dirname, "../main.ts"), "internal", "pull-worker"],
  undefined,
);

/** A worker under an attacker's control: `hostile` is JavaScript that may `say` lines and await answers by `next`. */
function hostileWorker(hostile: string): Puller {
  const script = `
    const { createInterface } = await import("node:readline");
    const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
    const next = async () => JSON.parse((await lines.next()).value);
    const say = (line) => new Promise((done) => process.stdout.write(JSON.stringify(line) + "\\n", done));
    const { order, scratch } = await next();
    const digest = "sha256:" + "a".repeat(64);
    const config = { entrypoint: [], cmd: [], env: [], user: "", workingDir: "", stopSignal: "" };
    const layer = { descriptor: { mediaType: "", digest, size: 1 }, diffId: digest };
    const image = { digest, manifestDigest: digest, config, layers: [layer] };
    ${hostile}
    process.exit(0);`;
  return childPuller([process.execPath, "--input-type=module", "-e", script], undefined);
}

async function ensure(puller: Puller, options: { directory: string; address?: string; timeoutMs?: number }) {
  const { directory, address = "registry.example", timeoutMs } = options;
  const rules = { allowed: ["*", "127.0.0.1"], denied: [] };
  const store = new ImageStore({ directory, registries: {}, rules, puller });
  const { signal } = new AbortController();
  return (await store.ensure({ reference: `${address}/a/b:1`, forcePull: false, timeoutMs, signal })) as ResolvedImage;
}

test("a pull by a child gives the image, and a registry's refusal with its code", async () => {
  const image = fakeImage({ layers: [layerOf({ path: "f", body: "content" })], cmd: ["run"] });
  await using registry = await LoopbackServer.start(answersOf({ "a/b:1": image }));
  const directory = await mkdtemp(join(root, "store-"));
  const pulled = await ensure(worker, { directory, address: registry.address });
  assert.deepEqual([pulled.cached, pulled.config.cmd], [false, ["run"]]);
  assert.deepEqual(await readdir(join(directory, "tmp")), []);
  await using empty = await LoopbackServer.start(() => undefined);
  await assert.rejects(ensure(worker, { directory, address: empty.address }), (error) => {
    assert.ok(error instanceof DriverError);
    assert.equal(error.code, "pull_failed");
    assert.match(error.message, /not found \(404\)/);
    return true;
  });
});

test("a child that has said its last and does not end is ended", async () => {
  const hostile = `
    setInterval(() => {}, 60_000);
    await say({ kind: "error", code: "pull_failed", message: "refused", retryable: false, unreachable: false });
    await new Promise(() => {});`;
  const directory = await mkdtemp(join(root, "store-"));
  await assert.rejects(ensure(hostileWorker(hostile), { directory, timeoutMs: 60_000 }), /refused/);
});

test("whatever the child says, nothing of the host's is taken over or changed", async () => {
  const victim = join(root, "victim");
  await writeFile(victim, "victim", { mode: 0o600 });
  for (const [hostile, problem] of [
    ["", /without an answer/],
    [`await say({ kind: "done" });`, /the pull did not end/],
    [`await say({ kind: "fetched", layers: [0] });`, /no layers were asked for/],
    [`await say({ kind: "confirmed", usedCredentials: false }); await say({ kind: "done" });`, /the pull did not end/],
    [
      `image.layers[0].descriptor.digest = "sha256:../../victim"; await say({ kind: "resolved", usedCredentials: false, image });`,
      /Invalid/,
    ],
    [
      `await say({ kind: "resolved", usedCredentials: false, image }); await next();
       (await import("node:fs")).symlinkSync(${JSON.stringify(victim)}, scratch + "/" + "a".repeat(64) + ".blob");
       await say({ kind: "fetched", layers: [0] }); await next();`,
      /ELOOP|plain file/,
    ],
    [
      `await say({ kind: "resolved", usedCredentials: false, image }); await next();
       await say({ kind: "fetched", layers: [] }); await next();`,
      /a layer is missing/,
    ],
    [`for (;;) await say("x".repeat(1 << 20).repeat(20));`, /wrote too much|Invalid/],
    [
      `await say({ kind: "error", code: "bad_layer", message: "x\\ny".repeat(1e6), retryable: false, unreachable: false });`,
      /x; y/,
    ],
  ] as const) {
    const directory = await mkdtemp(join(root, "store-"));
    await assert.rejects(ensure(hostileWorker(hostile), { directory }), problem, hostile);
    for (const folder of ["tmp", "squashfs", "blobs/sha256", "refs", "access"]) {
      assert.deepEqual(await readdir(join(directory, folder)), [], `${hostile}: ${folder}`);
    }
  }
});

test("a child that never ends is ended at the deadline", async () => {
  const directory = await mkdtemp(join(root, "store-"));
  const refused = ensure(hostileWorker("setInterval(() => {}, 1000); await new Promise(() => {});"), {
    directory,
    timeoutMs: 1_000,
  });
  await assert.rejects(refused, /not done within 1 s.*pull_timed_out/);
  assert.deepEqual(await readdir(join(directory, "tmp")), []);
});
