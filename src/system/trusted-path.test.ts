import assert from "node:assert/strict";
import { chmod, lchown, mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { requireTrusted, untrustedPart } from "./trusted-path.ts";

const needsRoot = { skip: process.getuid?.() === 0 ? false : "changing owners needs root" };

async function program(context: TestContext): Promise<{ directory: string; path: string }> {
  const directory = await mkdtemp(join(tmpdir(), "litegix-trusted-"));
  context.after(() => rm(directory, { recursive: true }));
  await mkdir(join(directory, "bin"), { mode: 0o755 });
  const path = join(directory, "bin/program");
  await writeFile(path, "", { mode: 0o755 });
  return { directory, path };
}

test("what root owns and others can't write is trusted, also below a sticky /tmp", async (context) => {
  const { path } = await program(context);
  assert.equal(await untrustedPart({ path }), undefined);
  assert.equal(await untrustedPart({ path: "/" }), undefined);
  assert.equal(await untrustedPart({ path: join(path, "../not-there/yet") }), undefined);
});

test("what others may write is named, with the command that helps", async (context) => {
  const { directory, path } = await program(context);
  await chmod(path, 0o757);
  assert.deepEqual(await untrustedPart({ path }), {
    path,
    reason: "can be written by everybody",
    cure: `chmod go-w ${path}`,
  });
  await chmod(path, 0o755);
  await chmod(join(directory, "bin"), 0o775);
  assert.match((await untrustedPart({ path }))?.reason ?? "", /^can be written by group \d+$/);
  await chmod(join(directory, "bin"), 0o1777);
  assert.equal(await untrustedPart({ path }), undefined);
  assert.equal((await untrustedPart({ path: join(directory, "bin") }))?.path, join(directory, "bin"));
});

test("what another user owns is not trusted, nor a link of theirs", needsRoot, async (context) => {
  const { directory, path } = await program(context);
  const link = join(directory, "link");
  await symlink("bin/program", link);
  assert.equal(await untrustedPart({ path: link }), undefined);
  await lchown(link, 65_534, 65_534);
  assert.equal((await untrustedPart({ path: link }))?.path, link);
  await lchown(join(directory, "bin"), 65_534, 65_534);
  assert.equal((await untrustedPart({ path }))?.reason, "belongs to user 65534");
  await assert.rejects(requireTrusted({ path, name: "the program" }), {
    code: "untrusted_path",
    message: /^the program can't be trusted: \S+\/bin belongs to user 65534, who .*; chown root \S+\/bin, or/,
  });
});

test("the place where a link leads counts too, and a circle of links ends", async (context) => {
  const { directory, path } = await program(context);
  await symlink(join(directory, "bin"), join(directory, "link"));
  await chmod(join(directory, "bin"), 0o777);
  assert.equal((await untrustedPart({ path: join(directory, "link/program") }))?.path, join(directory, "bin"));
  await chmod(join(directory, "bin"), 0o755);
  assert.equal(await untrustedPart({ path: join(directory, "link/program") }), undefined);
  await rm(path);
  await symlink("program", path);
  assert.equal((await untrustedPart({ path }))?.path, path);
});

test("if a directory is meant, a file's own mode does not count", async (context) => {
  const { path } = await program(context);
  await chmod(path, 0o666);
  assert.equal(await untrustedPart({ path, isDirectory: true }), undefined);
});
