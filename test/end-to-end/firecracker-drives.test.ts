// The host's disks in a jail: whatever they lie on, the VM's user gets them, and on the host they stay their owner's.
import assert from "node:assert/strict";
import { chownSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { startJob } from "./support/allocation.ts";
import { run, runSuccessfully } from "./support/command.ts";
import { skipFirecracker } from "./support/environment.ts";
import { Fixture } from "./support/fixture.ts";
import { assertNothingLeft, shell } from "./support/jailed.ts";
import { machineOf } from "./support/machines.ts";
import { waitFor } from "./support/wait.ts";

const nobody = 65_534;
/** Three disks more than most VMs of the rig have. */
const rigTimeoutMs = 600_000;
// In the rig /tmp is an ext4, which can show another owner, and /var/tmp an overlayfs, which can't.
const directories = ["/tmp/lge2e-drives-", "/var/tmp/lge2e-drives-"].map((prefix) => mkdtempSync(prefix));
after(() => {
  for (const path of directories) rmSync(path, { recursive: true });
});
const [onTmp = "", onVarTmp = ""] = directories.map((path) => join(path, "disk"));
const backing = `${onTmp}-of-device`;
for (const path of [onTmp, onVarTmp, backing]) {
  writeFileSync(path, "what the disk holds\n".padEnd(1 << 20, "\0"), { mode: 0o600 });
  chownSync(path, nobody, nobody);
}
let device = "";

const fixture = Fixture.use(
  (address) => `
    registry "docker.io" { mirrors = ["http://${address}"] }
    allowed_host_paths = ["${directories.join('", "')}", "/dev"]`,
);

const drive = (id: string, path: string, more = ""): string =>
  `drive {\n drive_id = "${id}"\n path_on_host = "${path}"\n ${more}\n }`;

async function loopDevices(): Promise<string> {
  return (await run({ file: "losetup", args: ["--list", "--noheadings", "--output", "BACK-FILE"] })).stdout;
}

describe("disks of the host in a jail", { skip: skipFirecracker }, () => {
  before(async () => {
    await run({ file: "modprobe", args: ["loop"] });
    device = (await runSuccessfully({ file: "losetup", args: ["--find", "--show", backing] })).trim();
  });
  after(() => run({ file: "losetup", args: ["--detach", device] }));

  it("are read and written by the VM's user, and nobody else becomes their owner", async (test) => {
    const disks = ["vdc", "vdd", "vde"];
    const script = [
      ...disks.map((disk) => `head -c 20 /dev/${disk}`),
      ...disks.map((disk) => `printf 'and what it got' | dd of=/dev/${disk} bs=1 seek=64 conv=notrunc 2>/dev/null`),
      "sync",
      "echo ready",
      "sleep 3600",
    ].join("; ");
    const config = [drive("one", onTmp), drive("two", onVarTmp), drive("three", device), shell(script)].join("\n");
    const owner = (await stat(device)).uid;
    const allocation = await startJob({ agent: fixture.agent, config, type: "service" });
    await allocation.waitForStatus(["running"], rigTimeoutMs);
    await allocation.waitForLog(/^ready$/m, { timeoutMs: rigTimeoutMs });
    assert.equal((await allocation.log()).match(/^what the disk holds$/gm)?.length, 3);
    const { vmmPid } = await machineOf(allocation);
    const user = Number(/^Uid:\s+(\d+)/m.exec(await readFile(`/proc/${vmmPid}/status`, "utf8"))?.[1]);
    const jail = `/proc/${vmmPid}/root`;
    const seen = await Promise.all([2, 3, 4].map((index) => stat(join(jail, `drive${index}`))));
    for (const facts of seen) {
      // A file as the user's own, or a device that the user has by its group: an owner could change a device's mode.
      if (facts.isFile()) assert.deepEqual([facts.uid, facts.gid], [user, user]);
      else assert.deepEqual([facts.isBlockDevice(), facts.uid, facts.gid, facts.mode & 0o777], [true, 0, user, 0o660]);
    }
    const kinds = seen.map((facts) => (facts.isFile() ? "file" : "device"));
    assert.equal(kinds[2], "device");
    test.diagnostic(`drives in the jail: ${kinds.join(", ")}`);
    assert.deepEqual(await owners(), [nobody, nobody, nobody, owner]);
    await allocation.stop();
    await assertNothingLeft(fixture.agent);
    assert.deepEqual(await owners(), [nobody, nobody, nobody, owner]);
    for (const path of [onTmp, onVarTmp, backing]) {
      assert.equal((await readFile(path)).toString("latin1", 64, 79), "and what it got", path);
    }
    await waitFor({
      what: "the loop devices of the VM to be free",
      timeoutMs: 30_000,
      attempt: async () => (await loopDevices()).trim() === backing || undefined,
      seen: loopDevices,
    });
  });

  async function owners(): Promise<number[]> {
    const facts = await Promise.all([onTmp, onVarTmp, backing, device].map((path) => stat(path)));
    return facts.map(({ uid }) => uid);
  }
});
