// Layers of every compression, whiteouts, opaque directories, attributes, and indexes of several platforms.
// Images are made and pushed by umoci and skopeo, served by Debian's docker-registry.
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { runSuccessfully } from "./support/command.ts";
import { skipVms } from "./support/environment.ts";
import { Fixture } from "./support/fixture.ts";
import { ImageBuilder } from "./support/image-builder.ts";
import { outputOf } from "./support/image-output.ts";

const fixture = Fixture.use();
let images: ImageBuilder;
before(async () => {
  images = await ImageBuilder.create();
});
after(() => images[Symbol.asyncDispose]());

describe("layers", { skip: skipVms, concurrency: 2 }, () => {
  before(async () => {
    await images.create("layers");
    await images.addLayer("layers", {
      at: "/data",
      fill: "echo one > one; echo two > two; mkdir -p deep/er opaque; echo x > deep/er/x; echo lower > opaque/lower",
    });
    await images.addWhiteout("layers", "/data/one");
    await images.addWhiteout("layers", "/data/deep");
    await images.addLayer("layers", { at: "/data/opaque", fill: "echo upper > upper", opaque: true });
    await images.addLayer("layers", {
      at: "/attributes",
      fill: [
        "echo s > secret; chmod 640 secret; chown 33:34 secret",
        "echo h > first; ln first second",
        "ln -s ../data/two link",
        "mkdir sticky; chmod 1777 sticky",
        "cp /bin/busybox setuid; chmod 4755 setuid",
        "echo ü > 'name with ü and spaces'",
        `echo long > ${"n".repeat(200)}`,
        "touch -d '2001-02-03 04:05:06 UTC' old",
        "head -c 3000000 /dev/urandom > random; sha256sum random | cut -c1-64 > random.sum",
      ].join("; "),
    });
  });

  async function pushKinds(): Promise<void> {
    const plain = join(images.directory, "plain");
    await runSuccessfully({
      file: "skopeo",
      args: [
        ...["--insecure-policy", "copy", "--quiet", "--dest-decompress"],
        ...[images.source("layers"), `dir:${plain}`],
      ],
    });
    await fixture.registry.push({ source: images.source("layers"), name: "e2e/gzip:v1" });
    // Through a layout: a direct push would find the same content gzipped in the registry, and use that.
    const zstd = `oci:${join(images.directory, "zstd")}:v1`;
    await runSuccessfully({
      file: "skopeo",
      args: ["--insecure-policy", "copy", "--quiet", "--dest-compress-format", "zstd", `dir:${plain}`, zstd],
    });
    await fixture.registry.push({ source: zstd, name: "e2e/zstd:v1", flags: ["--preserve-digests"] });
    await fixture.registry.push({ source: `dir:${plain}`, name: "e2e/plain:v1", flags: ["--preserve-digests"] });
  }

  it("of every compression, with whiteouts, opaque directories and all attributes", async (context) => {
    await pushKinds();
    const expected = {
      gzip: /tar\+gzip/,
      zstd: /tar\+zstd/,
      plain: /tar"/,
    };
    for (const [kind, mediaType] of Object.entries(expected)) {
      await context.test(kind, async () => {
        assert.match((await fixture.registry.manifest(`e2e/${kind}`, "v1")).body, mediaType);
        await checkLayers(`${fixture.registry.address}/e2e/${kind}:v1`);
      });
    }
  });

  async function checkLayers(image: string): Promise<void> {
    const output = await outputOf(
      fixture.agent,
      image,
      [
        "ls -A /data | sort | tr '\\n' ' '; echo",
        "ls -A /data/opaque",
        "cd /attributes; stat -c '%a %u %g' secret sticky setuid",
        "stat -c '%h' first; [ first -ef second ] && echo linked",
        "cat link 'name with ü and spaces' n*n",
        "stat -c %Y old",
        '[ "$(sha256sum random | cut -c1-64)" = "$(cat random.sum)" ] && echo whole',
        "ls -a / | grep -c '^\\.wh' || true",
      ].join("; "),
    );
    const lines = output.trimEnd().split("\n");
    assert.deepEqual(lines, [
      "opaque two ",
      "upper",
      "640 33 34",
      "1777 0 0",
      "4755 0 0",
      "2",
      "linked",
      "two",
      "ü",
      "long",
      `${Date.UTC(2001, 1, 3, 4, 5, 6) / 1000}`,
      "whole",
      "0",
    ]);
  }

  it("are writable in the VM, and pristine for the next one", async () => {
    const line = "ls /bin/new 2>&1; echo x > /bin/new && rm /bin/ls && mkdir /home/d && cat /bin/new";
    const first = await outputOf(fixture.agent, "busybox", line);
    const second = await outputOf(fixture.agent, "busybox", line);
    assert.match(first, /No such file[\s\S]*x\n$/);
    assert.equal(second, first);
  });
});

describe("an index of several platforms", { skip: skipVms }, () => {
  it("gives the image for linux/amd64", async () => {
    await fixture.registry.push({
      source: images.source("latest"),
      name: "e2e/index:amd64",
      flags: ["--format", "oci"],
    });
    const { digest, body } = await fixture.registry.manifest("e2e/index", "amd64");
    const entry = { mediaType: "application/vnd.oci.image.manifest.v1+json", digest, size: Buffer.byteLength(body) };
    // The wrong platform stands first, and its image can't be run.
    const unusable = JSON.stringify({ ...JSON.parse(body), layers: [] });
    await fixture.registry.putManifest({
      repository: "e2e/index",
      tag: "arm64",
      mediaType: entry.mediaType,
      body: unusable,
    });
    const other = await fixture.registry.manifest("e2e/index", "arm64");
    const index = {
      schemaVersion: 2,
      mediaType: "application/vnd.oci.image.index.v1+json",
      manifests: [
        { ...entry, digest: other.digest, size: unusable.length, platform: { os: "linux", architecture: "arm64" } },
        { ...entry, platform: { os: "linux", architecture: "amd64" } },
      ],
    };
    await fixture.registry.putManifest({
      repository: "e2e/index",
      tag: "v1",
      mediaType: index.mediaType,
      body: JSON.stringify(index),
    });
    assert.equal(await outputOf(fixture.agent, `${fixture.registry.address}/e2e/index:v1`, "uname -m"), "x86_64\n");
  });
});
