import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { RecoverError } from "./errors.ts";
import { LitegixDriver } from "./litegix-driver.ts";
import type { Fingerprint, TaskConfig } from "./nomad-driver.ts";
import { encodeDriverState } from "./task/recover-task.ts";

const agent = { totalMhz: 2000, coreCount: 1 };
const nothing = (): void => undefined;
const logger = { trace: nothing, debug: nothing, info: nothing, warn: nothing, error: nothing };

let directory = "";
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "litegix-driver-"));
});
after(() => rm(directory, { recursive: true }));

async function firstFingerprint(driver: LitegixDriver): Promise<Fingerprint | undefined> {
  const stop = new AbortController();
  try {
    for await (const fingerprint of driver.fingerprint(stop.signal)) return fingerprint;
    return undefined;
  } finally {
    stop.abort();
    await driver.shutdown();
  }
}

// An error from SetConfig would keep the whole agent, with its other drivers, from starting.
describe("a plugin config that allows no task to run", () => {
  it("a value against the rules: the fingerprint names it; what runs is still found and ended", async () => {
    const driver = new LitegixDriver({ logger });
    await driver.setConfig({ config: { rootfs_base_path: directory, vmm: "xen" }, agent });
    const config = { id: "t", name: "t" } as TaskConfig;
    const driverState = encodeDriverState("0123abcd");
    await assert.rejects(
      driver.recoverTask({ config, driverState, signal: new AbortController().signal }),
      (error) => error instanceof RecoverError && /no longer on this host/.test(error.message),
    );
    await driver.destroyTask({ taskId: "t", force: true });
    const { health, description } = (await firstFingerprint(driver)) ?? {};
    assert.equal(health, "unhealthy");
    assert.match(description ?? "", /^plugin config: vmm = "xen": must be "auto"/);
  });

  it("a base path below a file: the fingerprint names it", async () => {
    const file = join(directory, "file");
    await writeFile(file, "");
    const driver = new LitegixDriver({ logger });
    await driver.setConfig({ config: { rootfs_base_path: join(file, "base") }, agent });
    const { health, description } = (await firstFingerprint(driver)) ?? {};
    assert.equal(health, "unhealthy");
    assert.ok(description?.includes(file), description ?? "none");
  });

  it("leftovers that can't be removed do no harm", async () => {
    const base = join(directory, "base");
    await mkdir(base);
    await writeFile(join(base, "vms"), "no directory");
    const driver = new LitegixDriver({ logger });
    await driver.setConfig({ config: { rootfs_base_path: base }, agent });
    await driver.shutdown();
  });
});
