import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { findFirecracker, versionWarning } from "./find-firecracker.ts";

let directory = "";

/** A program that prints what Firecracker does for `--version`. */
async function program(lines: string): Promise<string> {
  const path = join(directory, `firecracker-${crypto.randomUUID()}`);
  await writeFile(path, `#!/bin/sh\ncat <<'.'\n${lines}\n.\n`, { mode: 0o755 });
  return path;
}

describe("Firecracker's version", () => {
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), "find-firecracker-"));
  });
  after(() => rm(directory, { recursive: true }));

  it("is read from the program's output", async () => {
    const path = await program(
      "Firecracker v1.16.1\n\n2026-01-01T00:00:00.000000000 [anonymous-instance:main] exiting",
    );
    assert.deepEqual(await findFirecracker({ path }), { path, version: "1.16.1" });
  });

  for (const version of ["1.14.0", "1.15.3", "1.16.9", "1.17.0-dev", "2.0.0"]) {
    it(`${version} is new enough`, async () => {
      assert.equal((await findFirecracker({ path: await program(`Firecracker v${version}`) })).version, version);
    });
  }

  for (const version of ["1.13.1", "1.9.0", "0.25.2"]) {
    it(`${version} is too old, and the error names the oldest supported`, async () => {
      await assert.rejects(findFirecracker({ path: await program(`Firecracker v${version}`) }), {
        code: "vmm_unusable",
        message: new RegExp(`is version ${version.replaceAll(".", "\\.")}; the oldest supported is 1\\.14`),
      });
    });
  }

  it("of another program does not count", async () => {
    await assert.rejects(findFirecracker({ path: await program("QEMU emulator version 7.2") }), {
      code: "vmm_missing",
      message: /install the official release/,
    });
  });

  it("above the newest tested gets a warning, its patches do not", () => {
    for (const version of ["1.14.0", "1.16.0", "1.16.99"]) assert.equal(versionWarning(version), undefined);
    for (const version of ["1.17.0", "1.100.0", "2.0.0"]) {
      assert.match(versionWarning(version) ?? "", new RegExp(`Firecracker ${version} is newer .* \\(1\\.16\\)`));
    }
  });
});
