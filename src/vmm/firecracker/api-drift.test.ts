// The generated types match Firecracker's description, and the fake knows every operation of it.
import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { it } from "node:test";
import { describedOperations } from "../../../test/fakes/firecracker-description.ts";
import { runCommand } from "../../system/run-command.ts";

const root = join(import.meta.dirname, "../../..");
const generated = "src/gen/firecracker/api.ts";

it("types are current", async () => {
  const directory = await mkdtemp(join(tmpdir(), "litegix-drift-"));
  try {
    const args = [join(root, "scripts/generate-firecracker-api.ts"), directory];
    await runCommand({ file: process.execPath, args, timeoutMs: 60_000 });
    const fresh = await readFile(join(directory, generated), "utf8");
    assert.equal(await readFile(join(root, generated), "utf8"), fresh, "run make generate");
    for (const operation of describedOperations) assert.ok(fresh.includes(`"${operation}":`), operation);
  } finally {
    await rm(directory, { recursive: true });
  }
});
