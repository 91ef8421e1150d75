import assert from "node:assert/strict";
import { mkdir, mkdtemp, readlink, rename, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import fc from "fast-check";
import { type HostFile, openBeneath } from "./host-file.ts";

const parts = ["one", "two", "three", "disk"] as const;

/** `allowed/one/two/three/disk`, and the same path below `secret`. */
async function trees(context: TestContext): Promise<{ allowed: string; secret: string }> {
  const directory = await mkdtemp(join(tmpdir(), "litegix-host-file-"));
  context.after(() => rm(directory, { recursive: true }));
  const [allowed, secret] = [join(directory, "allowed"), join(directory, "secret")];
  for (const tree of [allowed, secret]) {
    await mkdir(join(tree, ...parts.slice(0, -1)), { recursive: true });
    await writeFile(join(tree, ...parts), tree === secret ? "secret" : "allowed");
  }
  return { allowed, secret };
}

async function contentOf(file: HostFile): Promise<string> {
  return (await file.read(100)).toString();
}

for (const [index, part] of parts.entries()) {
  test(`an opened file stays the same if ${part} becomes a link`, async (context) => {
    const { allowed, secret } = await trees(context);
    await using file = await openBeneath({ path: join(allowed, ...parts), roots: [allowed] });
    const swapped = join(allowed, ...parts.slice(0, index + 1));
    await rename(swapped, `${swapped}.moved`);
    await symlink(join(secret, ...parts.slice(0, index + 1)), swapped);
    assert.equal(await contentOf(file), "allowed");
    await assert.rejects(openBeneath({ path: join(allowed, ...parts), roots: [allowed] }), { code: "EXDEV" });
  });
}

test("no exchange of a component during the look-up leads outside", async (context) => {
  const { allowed, secret } = await trees(context);
  const step = fc.record({ index: fc.nat(parts.length - 1), pause: fc.nat(3) });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 8 }), async (steps) => {
      let done = false;
      const opening = (async () => {
        for (let time = 0; time < 10; time++) {
          try {
            await using file = await openBeneath({ path: join(allowed, ...parts), roots: [allowed] });
            assert.equal(await contentOf(file), "allowed");
          } catch (error) {
            const { code = "" } = error as NodeJS.ErrnoException;
            if (!["EXDEV", "ENOENT", "ENOTDIR", "EINVAL"].includes(code)) throw error;
          }
        }
        done = true;
      })();
      while (!done) {
        for (const { index, pause } of steps) {
          const path = join(allowed, ...parts.slice(0, index + 1));
          await rename(path, `${path}.moved`);
          await symlink(join(secret, ...parts.slice(0, index + 1)), path);
          for (let turn = 0; turn < pause; turn++) await new Promise(setImmediate);
          await rename(`${path}.moved`, `${path}.back`).catch(() => undefined);
          await rm(path);
          await rename(`${path}.back`, path);
        }
      }
      await opening;
    }),
    { numRuns: 20 },
  );
});

test("links lead from one allowed place into another, and no further", async (context) => {
  const { allowed, secret } = await trees(context);
  const other = join(allowed, "../other");
  await mkdir(other);
  await writeFile(join(other, "real"), "other");
  await symlink("../other/real", join(allowed, "relative"));
  await symlink(join(other, "real"), join(allowed, "absolute"));
  await symlink("one/two", join(allowed, "below"));
  await symlink(join(secret, "one"), join(allowed, "outside"));
  await symlink("loop", join(allowed, "loop"));
  const open = (name: string, roots: readonly string[]): Promise<HostFile> =>
    openBeneath({ path: join(allowed, name), roots });
  for (const name of ["relative", "absolute"]) {
    await assert.rejects(open(name, [allowed]), { code: "EXDEV" });
    await using file = await open(name, [allowed, join(other, "real")]);
    assert.equal(await contentOf(file), "other");
  }
  await using below = await open("below/three/disk", [allowed]);
  assert.equal(await contentOf(below), "allowed");
  assert.equal(below.path, join(allowed, ...parts));
  await assert.rejects(open("outside/two/three/disk", [allowed]), { code: "EXDEV" });
  await assert.rejects(open("loop", [allowed]), { code: "ELOOP" });
  // The kernel's links in /proc name no path that can be followed.
  await assert.rejects(openBeneath({ path: "/proc/self/exe", roots: ["/proc"] }), { code: "EXDEV" });
  assert.ok(await readlink("/proc/self/exe"));
});

test("an allowed link stands for the place where it leads", async (context) => {
  const { allowed, secret } = await trees(context);
  const volume = join(allowed, "volume");
  await symlink(join(secret, ...parts), volume);
  await using file = await openBeneath({ path: volume, roots: [volume] });
  assert.equal(await contentOf(file), "secret");
  assert.equal(file.path, join(secret, ...parts));
});

test("a device or a FIFO is opened without waking it, and a missing root is not there", async (context) => {
  const { allowed } = await trees(context);
  await using device = await openBeneath({ path: "/dev/null", roots: ["/dev"] });
  assert.equal(device.kind, "other");
  const missing = join(allowed, "missing");
  await assert.rejects(openBeneath({ path: join(missing, "x"), roots: [missing] }), { code: "ENOENT" });
});

test("no more is read than the file had, or the limit allows", async (context) => {
  const { allowed } = await trees(context);
  await using file = await openBeneath({ path: join(allowed, ...parts), roots: [allowed] });
  await writeFile(join(allowed, ...parts), "allowed and more");
  assert.equal(await contentOf(file), "allowed");
  await assert.rejects(file.read(3), /has 7 bytes; the limit is 3/);
});
