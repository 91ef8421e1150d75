import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { it } from "node:test";
import { isListening } from "./sockets.ts";

it("a socket has a listener once connections succeed, not once its file exists", async () => {
  const directory = await mkdtemp(join(tmpdir(), "listening-"));
  const path = join(directory, "sock");
  assert.equal(await isListening(path), false);
  // The kernel refuses connections to any file without a listener, as between bind and listen.
  await writeFile(join(directory, "file"), "");
  assert.equal(await isListening(join(directory, "file")), false);
  const server = createServer().listen(path);
  await once(server, "listening");
  assert.equal(await isListening(path), true);
  server.close();
  await rm(directory, { recursive: true });
});
