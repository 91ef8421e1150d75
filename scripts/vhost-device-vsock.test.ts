import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { cachedVhostDeviceVsock, placeOf } from "./vhost-device-vsock.ts";

const cache = mkdtempSync(join(tmpdir(), "litegix-cache-"));
after(() => rmSync(cache, { recursive: true }));
const options = { cache, rustTarget: "x86_64-unknown-linux-gnu" };

test("the cache's program counts only as the file that was built, in a place that nobody else may change", () => {
  assert.equal(cachedVhostDeviceVsock(options), undefined);
  const root = placeOf(options);
  const program = join(root, "bin/vhost-device-vsock");
  mkdirSync(join(root, "bin"), { recursive: true });
  writeFileSync(program, "the program");
  // An earlier version's cache, or an interrupted copy: no record.
  assert.equal(cachedVhostDeviceVsock(options), undefined);
  const sha256 = createHash("sha256").update("the program").digest("hex");
  writeFileSync(join(root, "build.json"), JSON.stringify({ sha256, components: [] }));
  assert.deepEqual(cachedVhostDeviceVsock(options), { program, components: [] });
  chmodSync(join(root, "bin"), 0o777);
  assert.throws(() => cachedVhostDeviceVsock(options), /others may change .*\/bin:/);
  chmodSync(join(root, "bin"), 0o755);
  writeFileSync(program, "another program");
  assert.equal(cachedVhostDeviceVsock(options), undefined);
});

test("another target has another place", () => {
  assert.notEqual(placeOf(options), placeOf({ ...options, rustTarget: "x86_64-unknown-linux-musl" }));
});
