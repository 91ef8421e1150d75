// Neither an image's name, nor its layers, nor other users of the host reach the host's own services, take its memory, stop its
// pulls, or get images that others pulled with their credentials.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { readdir, readFile, readlink } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { gzipSync } from "node:zlib";
import { converterVersion } from "../../src/images/convert.ts";
import { chainIdOf } from "../../src/images/store/pull-session.ts";
import { encodeTarHeader } from "../../src/images/tar/encode-tar-header.ts";
import { answersOf, type FakeImage, fakeImage, layerOf, plainHeader } from "../fakes/fake-image.ts";
import { type Answers, LoopbackServer } from "../fakes/loopback-server.ts";
import { Agent } from "./support/agent.ts";
import { startJob } from "./support/allocation.ts";
import { busyboxLayout, skipVms } from "./support/environment.ts";
import { failureOf, outputOf } from "./support/image-output.ts";
import { Registry } from "./support/registry.ts";
import { waitFor } from "./support/wait.ts";

const basic = `Basic ${Buffer.from("user:secret").toString("base64")}`;
const auth = 'auth {\n username = "user"\n password = "secret"\n }';

let registry: Registry;
let closed: LoopbackServer;
let open: LoopbackServer;
let hanging: HangingRegistry;
let agent: Agent;

/** A registry that never sends a layer. */
class HangingRegistry implements AsyncDisposable {
  readonly #server = createServer();

  static async start(answers: Answers): Promise<HangingRegistry> {
    const registry = new HangingRegistry();
    registry.#server.on("request", ({ url = "" }, response) => {
      const answer = answers({ method: "GET", path: url, query: new URLSearchParams(), authorization: "", accept: "" });
      if (answer?.body !== undefined) response.end(answer.body);
    });
    await new Promise<void>((resolve) => registry.#server.listen(0, "127.0.0.1", resolve));
    return registry;
  }

  get address(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

const layer = layerOf({ path: "private", body: "private" });
const hangingImage = fakeImage({ layers: [layer] });
let privateImage: FakeImage;

/** Within every limit on an image, and still more than fits into the memory of a pull. */
function manyFiles(folder: string, xattrs: { name: string; value: Buffer }[]): { layer: Buffer; diffId: string } {
  const name = "n".repeat(110);
  const files = Array.from({ length: 450_000 }, (_, index) =>
    encodeTarHeader({ ...plainHeader, path: `${folder}/${index >> 10}/${name}${index}`, xattrs }),
  );
  const tar = Buffer.concat([...files, Buffer.alloc(1024)]);
  const diffId = `sha256:${createHash("sha256").update(tar).digest("hex")}`;
  return { layer: gzipSync(tar, { level: 1 }), diffId };
}

/** Each entry is small on the way and has a megabyte in memory. */
function manyAttributes(): Buffer {
  const xattrs = [{ name: "user.x", value: Buffer.alloc(65_000, "a") }];
  const entries = Array.from({ length: 4_000 }, (_, index) =>
    encodeTarHeader({ ...plainHeader, path: `${index}`, xattrs }),
  );
  return gzipSync(Buffer.concat([...entries, Buffer.alloc(1024)]));
}

before(async () => {
  if (skipVms !== false) return;
  registry = await Registry.start();
  await registry.push({ source: `oci:${busyboxLayout}:latest`, name: "library/busybox:v1" });
  await registry.push({ source: `oci:${busyboxLayout}:latest`, name: "private/busybox:v1" });
  hanging = await HangingRegistry.start((request) =>
    request.path.endsWith(hangingImage.layerDigests[0] ?? "")
      ? undefined
      : answersOf({ "a/b:v1": hangingImage })(request),
  );
  privateImage = await imageOf(registry, "private/busybox", "v1");
  const documents = answersOf({ "private/app:v1": privateImage });
  closed = await LoopbackServer.start((request) =>
    request.authorization === basic
      ? documents(request)
      : { status: 401, headers: { "www-authenticate": 'Basic realm="closed"' } },
  );
  const files = [manyFiles("a", [{ name: "user.x", value: Buffer.from("x") }]), manyFiles("b", [])];
  const attributes = manyAttributes();
  open = await LoopbackServer.start(
    answersOf({
      "many/files:v1": fakeImage({
        layers: files.map(({ layer }) => layer),
        diffIds: files.map(({ diffId }) => diffId),
      }),
      "many/attributes:v1": fakeImage({ layers: [attributes], diffIds: [`sha256:${"0".repeat(64)}`] }),
    }),
  );
  const blocks = [closed, open, hanging].map(({ address }) => `registry "${address}" { plain_http = true }`);
  agent = await Agent.start({
    pluginConfig: `
      registry "docker.io" { mirrors = ["http://${registry.address}"] }
      ${blocks.join("\n")}
      pull_memory_max = 512
    `,
  });
});
after(async () => {
  await agent?.[Symbol.asyncDispose]();
  for (const server of [closed, open, hanging, registry]) await server?.[Symbol.asyncDispose]();
});

/** An image as its registry has it. */
async function imageOf(from: Registry, repository: string, tag: string): Promise<FakeImage> {
  const { body, digest } = await from.manifest(repository, tag);
  const { config, layers } = JSON.parse(body) as { config: { digest: string }; layers: { digest: string }[] };
  const documents = new Map([[`manifests/${digest}`, Buffer.from(body)]]);
  for (const blob of [config, ...layers]) {
    documents.set(`blobs/${blob.digest}`, await readFile(from.blobPath(blob.digest)));
  }
  return { digest, configDigest: config.digest, layerDigests: layers.map((each) => each.digest), documents };
}

function chainOf(image: FakeImage): string {
  const config = image.documents.get(`blobs/${image.configDigest}`)?.toString() ?? "{}";
  return chainIdOf((JSON.parse(config) as { rootfs: { diff_ids: string[] } }).rootfs.diff_ids);
}

describe("another user of the host", { skip: skipVms }, () => {
  it("can't hold the store's lock", async () => {
    const hex = chainOf(privateImage).replace("sha256:", "");
    const path = join(agent.basePath, "images/squashfs", `${hex}-v${converterVersion}.squashfs`);
    const name = `litegix-${createHash("sha256").update(path).digest("hex").slice(0, 32)}`;
    const script = `use Socket; socket(S, AF_UNIX, SOCK_STREAM, 0); bind(S, pack_sockaddr_un("\\0${name}")) or die $!;
      listen(S, 9); $| = 1; print "held\\n"; sleep 600;`;
    const squatter = spawn("perl", ["-e", script], { uid: 65_534, gid: 65_534, stdio: ["ignore", "pipe", "inherit"] });
    try {
      await once(squatter.stdout, "data");
      const image = "library/busybox:v1";
      assert.equal(await outputOf(agent, image, "echo ran", 'image_pull_timeout = "60s"'), "ran\n");
    } finally {
      squatter.kill();
    }
  });
});

describe("an image that was pulled with credentials", { skip: skipVms }, () => {
  it("is not given to jobs without them", async () => {
    const image = `${closed.address}/private/app:v1`;
    assert.equal(await outputOf(agent, image, "echo ran", auth), "ran\n");
    assert.match(await failureOf(agent, image), /authentication required \(401\).*auth block/);
    const asked = closed.requests.length;
    assert.equal(await outputOf(agent, image, "echo again", auth), "again\n");
    assert.equal(closed.requests.length, asked);
  });
});

describe("a name that leads to this host", { skip: skipVms }, () => {
  it("is refused without a connection", async () => {
    await using service = await LoopbackServer.start(() => ({ body: "secret" }));
    for (const host of [service.address, service.address.replace("127.0.0.1", "localhost")]) {
      const text = await failureOf(agent, `${host}/a/b:1`);
      assert.match(text, /registry_not_allowed/);
      assert.match(text, /registries_allowed/);
    }
    assert.match(await failureOf(agent, "169.254.169.254/a/b:1"), /link-local address/);
    assert.deepEqual(service.requests, []);
  });
});

describe("the process that pulls", { skip: skipVms }, () => {
  it("has no rights on the host, and is gone with the task", async () => {
    const allocation = await startJob({ agent, config: `image = "${hanging.address}/a/b:v1"` });
    const pid = await waitFor({
      what: "the process that pulls",
      timeoutMs: 30_000,
      attempt: async () => {
        for (const name of await readdir("/proc")) {
          const mounts = await readFile(`/proc/${name}/mountinfo`, "utf8").catch(() => "");
          if (mounts.includes(" /scratch ") && mounts.includes(`${agent.basePath}/images`)) return name;
        }
        return undefined;
      },
    });
    const status = await readFile(`/proc/${pid}/status`, "utf8");
    const field = (name: string): string => new RegExp(`^${name}:[ \\t]*(.*)$`, "m").exec(status)?.[1] ?? "";
    assert.deepEqual(
      ["Uid", "Gid", "Groups", "CapEff", "CapPrm", "CapBnd", "NoNewPrivs"].map((name) =>
        field(name).replaceAll("\t", " ").trim(),
      ),
      [
        "79999 79999 79999 79999",
        "79999 79999 79999 79999",
        "",
        ...Array.from({ length: 3 }, () => "0000000000000000"),
        "1",
      ],
    );
    for (const kind of ["mnt", "ipc", "uts"]) {
      assert.notEqual(await readlink(`/proc/${pid}/ns/${kind}`), await readlink(`/proc/self/ns/${kind}`), kind);
    }
    const mounts = await readFile(`/proc/${pid}/mounts`, "utf8");
    const writable = mounts.split("\n").filter((line) => / rw,/.test(line));
    assert.deepEqual(
      writable.map((line) => line.split(" ")[1]),
      ["/scratch"],
    );
    const groups = await readFile(`/proc/${pid}/cgroup`, "utf8");
    assert.match(groups, /\/litegix-fc-driver\/pull-[0-9a-f-]+$/m);
    const environment = await readFile(`/proc/${pid}/environ`, "latin1");
    assert.doesNotMatch(environment, /NOMAD/);
    await allocation.stop();
    await waitFor({
      what: "the process to be gone",
      timeoutMs: 30_000,
      attempt: async () => ((await readdir("/proc")).includes(pid) ? undefined : true),
    });
    assert.deepEqual(await readdir(join(agent.basePath, "images/tmp")), []);
  });

  it("refuses a small layer with attributes of hundreds of MB", async () => {
    assert.match(await failureOf(agent, `${open.address}/many/attributes:v1`), /more than 64 MiB.*image_limit/);
  });

  it("ends at its memory limit, with a word about it", async () => {
    const text = await failureOf(agent, `${open.address}/many/files:v1`);
    assert.match(text, /more than the 512 MiB that a pull may use.*pull_memory_max.*pull_out_of_memory/);
    assert.deepEqual(await readdir(join(agent.basePath, "images/tmp")), []);
  });
});
