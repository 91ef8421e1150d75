import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { hostResolvConf } from "./etc-files.ts";

let directory: string;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "litegix-guest-files-"));
});
after(() => rm(directory, { recursive: true }));

/** The files' contents in the order in which the driver reads them; undefined for a missing one. */
async function seen(...contents: (string | undefined)[]): Promise<string> {
  const paths = contents.map((_, index) => join(directory, `${index}`));
  for (const [index, path] of paths.entries()) {
    await rm(path, { force: true });
    const content = contents[index];
    if (content !== undefined) await writeFile(path, content);
  }
  return await hostResolvConf(paths);
}

const real = "nameserver 10.0.0.2\nsearch example\n";

test("a host's file without loopback is the VM's", async () => {
  assert.equal(await seen(real, "nameserver 10.9.9.9\n"), real);
  assert.equal(await seen(undefined, real), "");
});

test("in place of a stub on loopback come the servers behind it", async () => {
  for (const stub of ["127.0.0.53", "127.0.0.1", "127.0.1.1", "::1"]) {
    assert.equal(await seen(`# stub\nnameserver ${stub}\noptions edns0\n`, undefined, real), real, stub);
  }
  // The second file may be a stub itself.
  assert.equal(await seen("nameserver 127.0.0.1\n", "nameserver 127.0.0.53\n", real), real);
});

test("if no file names them, only the other lines stay", async () => {
  assert.equal(
    await seen("nameserver\t127.0.0.1\nnameserver 10.0.0.3\nsearch example\n"),
    "nameserver 10.0.0.3\nsearch example\n",
  );
  assert.equal(await seen("nameserver ::1\nsearch example\n", ""), "search example\n");
});
