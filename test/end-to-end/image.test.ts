// From an image's name to the task's process: registries, mirrors, digests, the image's configuration.
// Images are made and pushed by umoci and skopeo, served by Debian's docker-registry.
import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { runJob } from "./support/allocation.ts";
import { busyboxLayout, skipVms } from "./support/environment.ts";
import { Fixture } from "./support/fixture.ts";
import { ImageBuilder } from "./support/image-builder.ts";
import { failureOf, outputOf } from "./support/image-output.ts";
import { Registry } from "./support/registry.ts";
import { TokenServer } from "./support/token-server.ts";

const fixture = Fixture.use(
  // The first mirror does not answer: the next one is asked.
  (address) => `
    registry "docker.io" { mirrors = ["http://127.0.0.1:2", "http://${address}"] }
    registry "mirrored.example" { mirrors = ["http://${address}"] }
  `,
);
let images: ImageBuilder;
before(async () => {
  images = await ImageBuilder.create();
});
after(() => images[Symbol.asyncDispose]());

describe("references", { skip: skipVms, concurrency: 2 }, () => {
  it("a bare name is the hub's library, by its mirrors", async () => {
    assert.equal(await outputOf(fixture.agent, "busybox", "echo ran"), "ran\n");
  });

  it("a host of its own, with port and tag, on loopback in plain HTTP", async () => {
    assert.equal(
      await outputOf(fixture.agent, `${fixture.registry.address}/library/busybox:latest`, "echo ran"),
      "ran\n",
    );
  });

  it("a mirrored host that does not exist", async () => {
    assert.equal(await outputOf(fixture.agent, "mirrored.example/library/busybox:latest", "echo ran"), "ran\n");
  });

  it("a digest", async () => {
    const { digest } = await fixture.registry.manifest("library/busybox", "latest");
    assert.equal(
      await outputOf(fixture.agent, `${fixture.registry.address}/library/busybox@${digest}`, "echo ran"),
      "ran\n",
    );
  });

  it("a name that the registry does not have", async () => {
    const text = await failureOf(fixture.agent, `${fixture.registry.address}/nobody/nothing:v1`);
    assert.match(text, /nobody\/nothing:v1/);
    assert.match(text, /404|unknown/);
    assert.match(text, /name and tag/);
  });

  it("a digest that the registry does not have", async () => {
    const text = await failureOf(fixture.agent, `${fixture.registry.address}/library/busybox@sha256:${"0".repeat(64)}`);
    assert.match(text, /sha256:0{64}/);
  });

  it("a registry that does not answer", async () => {
    const text = await failureOf(fixture.agent, "127.0.0.1:2/library/busybox");
    assert.match(text, /127\.0\.0\.1:2/);
    assert.match(text, /refused/);
  });
});

describe("the image's configuration", { skip: skipVms, concurrency: 2 }, () => {
  before(async () => {
    await images.create("configured");
    await images.configure("configured", [
      ...["--config.entrypoint", "/bin/echo", "--config.entrypoint", "entry"],
      ...["--clear", "config.cmd", "--config.cmd", "from-cmd"],
      ...["--config.env", "FROM_IMAGE=yes", "--config.env", "BOTH=image"],
      ...["--config.user", "www-data", "--config.workingdir", "/var/www"],
    ]);
    await fixture.registry.push({ source: images.source("configured"), name: "e2e/configured:v1" });
    await images.create("numeric");
    await images.configure("numeric", ["--config.user", "1234:5678"]);
    await fixture.registry.push({ source: images.source("numeric"), name: "e2e/numeric:v1" });
  });

  async function logOf(config: string): Promise<string> {
    const allocation = await runJob({
      agent: fixture.agent,
      config: `image = "${fixture.registry.address}/e2e/configured:v1"\n${config}`,
    });
    assert.equal(await allocation.status(), "complete", await allocation.eventText());
    return (await allocation.waitForLog(/[\s\S]*\n$/))[0];
  }

  it("ENTRYPOINT and CMD, where the task says nothing", async () => {
    assert.equal(await logOf(""), "entry from-cmd\n");
  });

  it("ENTRYPOINT and the task's args in place of CMD", async () => {
    assert.equal(await logOf('args = ["mine"]'), "entry mine\n");
  });

  it("ENTRYPOINT and the task's command in place of CMD, as docker's driver", async () => {
    assert.equal(await logOf('command = "mine"\nargs = ["too"]'), "entry mine too\n");
  });

  it("the task's entrypoint in place of both; USER, WORKDIR, ENV", async () => {
    const log = await logOf(`
      entrypoint = ["/bin/sh", "-c", "id -un; pwd; echo $FROM_IMAGE $BOTH"]
      env        = ["BOTH=task"]
    `);
    assert.equal(log, "www-data\n/var/www\nyes task\n");
  });

  it("USER as numbers", async () => {
    assert.equal(
      await outputOf(fixture.agent, `${fixture.registry.address}/e2e/numeric:v1`, "id -u; id -g"),
      "1234\n5678\n",
    );
  });
});

describe("force_pull", { skip: skipVms }, () => {
  it("asks the registry again; without it the tag's known image is taken", async () => {
    const image = `${fixture.registry.address}/e2e/moving:v1`;
    for (const version of ["first", "second"]) {
      await images.create(version);
      await images.addLayer(version, { at: "/version", fill: `echo ${version} > name` });
    }
    await fixture.registry.push({ source: images.source("first"), name: "e2e/moving:v1" });
    assert.equal(await outputOf(fixture.agent, image, "cat /version/name"), "first\n");
    await fixture.registry.push({ source: images.source("second"), name: "e2e/moving:v1" });
    assert.equal(await outputOf(fixture.agent, image, "cat /version/name"), "first\n");
    assert.equal(await outputOf(fixture.agent, image, "cat /version/name", "force_pull = true"), "second\n");
  });
});

describe("a registry that lies", { skip: skipVms }, () => {
  it("about a layer's bytes: the digest shows it", async () => {
    await images.create("changed");
    await images.addLayer("changed", { at: "/changed", fill: "echo changed > changed" });
    await fixture.registry.push({ source: images.source("changed"), name: "e2e/changed:v1" });
    const { body } = await fixture.registry.manifest("e2e/changed", "v1");
    const { layers } = JSON.parse(body) as { layers: { digest: string }[] };
    const digest = layers.at(-1)?.digest ?? "";
    const path = fixture.registry.blobPath(digest);
    const bytes = await readFile(path);
    const last = bytes.length - 1;
    bytes[last] = (bytes[last] ?? 0) ^ 1;
    await writeFile(path, bytes);
    const text = await failureOf(fixture.agent, `${fixture.registry.address}/e2e/changed:v1`);
    assert.match(text, /digest|damaged|corrupt|checksum/i);
  });
});

describe("a registry that wants credentials", { skip: skipVms }, () => {
  it("refuses without them, says so, and gives the image with the task's auth block", async () => {
    const directory = await mkdtemp(join(tmpdir(), "lge2e-auth-"));
    const passwords = join(directory, "htpasswd");
    // The password is "secret".
    await writeFile(passwords, "user:$2b$04$sNqU5nhjub2y9appMjKYAuFGZ266LhPF3QdGyQy5wbg/2gGer2Qyq\n");
    await using closed = await Registry.start(`auth: { htpasswd: { realm: e2e, path: ${passwords} } }`);
    const image = `${closed.address}/private/busybox:v1`;
    const source = `oci:${busyboxLayout}:latest`;
    await closed.push({ source, name: "private/busybox:v1", flags: ["--dest-creds", "user:secret"] });
    const text = await failureOf(fixture.agent, image);
    assert.match(text, /authentication required|401/);
    assert.match(text, /auth block/);
    const auth = 'auth {\n username = "user"\n password = "secret"\n }';
    assert.equal(await outputOf(fixture.agent, image, "echo ran", auth), "ran\n");
    await rm(directory, { recursive: true });
  });
});

describe("a registry that wants tokens", { skip: skipVms, concurrency: 2 }, () => {
  let tokens: TokenServer;
  let closed: Registry;
  const authOf = (password: string) => `auth {\n username = "user"\n password = "${password}"\n }`;
  before(async () => {
    tokens = await TokenServer.start({
      username: "user",
      password: "secret",
      isPublic: (repository) => repository.startsWith("public/"),
    });
    closed = await Registry.start(tokens.registrySettings);
    for (const name of ["public", "private"]) {
      // Each has a layer of its own, or the store would not ask for one.
      const source = await images.create(name);
      await images.addLayer(name, { at: "/kind", fill: `echo ${name} > name` });
      await closed.push({ source, name: `${name}/busybox:v1`, flags: ["--dest-creds", "user:secret"] });
    }
  });
  after(async () => {
    await closed[Symbol.asyncDispose]();
    await tokens[Symbol.asyncDispose]();
  });

  it("an anonymous token is enough for a public image", async () => {
    assert.equal(await outputOf(fixture.agent, `${closed.address}/public/busybox:v1`, "cat /kind/name"), "public\n");
  });

  it("a private one is refused without credentials, naming the registry and the cure", async () => {
    const text = await failureOf(fixture.agent, `${closed.address}/private/busybox:v1`);
    assert.ok(text.includes(`${closed.address}: `), text);
    assert.match(text, /authentication required.*401.*set the task's auth block/);
  });

  it("a wrong password is refused by the token server, which is named", async () => {
    const text = await failureOf(fixture.agent, `${closed.address}/private/busybox:v1`, authOf("mistaken-4711"));
    assert.ok(text.includes(`${closed.address}: token server ${tokens.address}: incorrect username or password`), text);
    assert.match(text, /check the task's auth block/);
    assert.doesNotMatch(text, /mistaken-4711/);
  });

  it("the task's auth block gives a private one", async () => {
    const image = `${closed.address}/private/busybox:v1`;
    assert.equal(await outputOf(fixture.agent, image, "cat /kind/name", authOf("secret")), "private\n");
  });
});
