import assert from "node:assert/strict";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { factWarnings, hostPathWarnings, inspectFacts } from "./host-facts.ts";

describe("facts of the host", () => {
  it("a base path in memory is recognised, and one on a disk is not", async () => {
    // Mounted on every Linux that runs our tests.
    const memory = await inspectFacts({ cgroupVersion: 2, basePath: "/dev/shm", minFreeMib: 0 });
    assert.equal(memory.basePathInMemory, true);
    const other = await inspectFacts({ cgroupVersion: 2, basePath: "/proc", minFreeMib: 0 });
    assert.equal(other.basePathInMemory, false);
  });

  it("each harmful fact gives a warning that names the cure", () => {
    const good = {
      cgroupVersion: 2,
      freeHugePages: 0,
      tun: true,
      basePathInMemory: false,
      reservesSpace: true,
      shortOfSpace: false,
    } as const;
    assert.deepEqual(factWarnings(good), []);
    assert.match(factWarnings({ ...good, cgroupVersion: undefined }).join(), /no cgroups/);
    assert.match(factWarnings({ ...good, tun: false }).join(), /modprobe tun/);
    assert.match(factWarnings({ ...good, basePathInMemory: true }).join(), /rootfs_base_path.*path on a disk/);
    assert.match(factWarnings({ ...good, reservesSpace: false }).join(), /use ext4 or XFS/);
    assert.match(factWarnings({ ...good, shortOfSpace: true }).join(), /less space than disk.min_free/);
  });

  it("an allowed directory that others may write gives one too", async (context) => {
    const directory = await mkdtemp(join(tmpdir(), "litegix-facts-"));
    context.after(() => rm(directory, { recursive: true }));
    assert.deepEqual(await hostPathWarnings([directory, join(directory, "none"), "/dev/null"]), []);
    await chmod(directory, 0o777);
    const [warning = ""] = await hostPathWarnings([directory]);
    assert.match(warning, /^allowed_host_paths has \S+, and \S+ can be written by everybody, who .*: chmod go-w \S+$/);
  });
});
