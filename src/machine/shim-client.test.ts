import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import * as http2 from "node:http2";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { Shim } from "../gen/litegix/shim/v1/shim_pb.js";
import { requireGeneration, ShimClient } from "./shim-client.ts";

test("a supervisor of another generation is refused, and both sides' are named", async (context) => {
  const directory = await mkdtemp(join(tmpdir(), "litegix-shim-test-"));
  const controlSocket = join(directory, "shim.sock");
  let generation = 1;
  const status = () => ({ id: "a1b2c3d4", version: "9.9.9", generation });
  const server = http2.createServer(
    connectNodeAdapter({ routes: (router) => router.service(Shim, { status }), acceptCompression: [] }),
  );
  await new Promise<void>((resolve) => server.listen(controlSocket, resolve));
  const client = new ShimClient({ controlSocket });
  context.after(async () => {
    client[Symbol.dispose]();
    server.close();
    await rm(directory, { recursive: true });
  });
  requireGeneration(await client.status());
  generation = 2;
  const newer = await client.status();
  assert.throws(() => requireGeneration(newer), {
    code: "supervisor_incompatible",
    message:
      'the VM\'s supervisor, of version "9.9.9", speaks generation 2 of its protocol, this driver 1 to 1: the VM is replaced (supervisor_incompatible)',
  });
  // A supervisor from before it reported its generation.
  generation = 0;
  const older = await client.status();
  assert.throws(() => requireGeneration(older), /speaks generation 0/);
});
