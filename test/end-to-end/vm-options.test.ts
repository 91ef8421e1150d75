// VM options in Firecracker's words: those that reach the guest, and those that are refused before anything boots.
import assert from "node:assert/strict";
import { chownSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { readFile, rename, stat, symlink } from "node:fs/promises";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { runJob, startJob } from "./support/allocation.ts";
import { skipVms, vmm } from "./support/environment.ts";
import { Fixture } from "./support/fixture.ts";
import { HeldRegistry } from "./support/held-registry.ts";
import { waitUntilNoMachineIsLeft } from "./support/machines.ts";

// Jailed VMs read files that others may read, and their users must be able to reach them.
const directory = mkdtempSync("/var/tmp/lge2e-drives-");
after(() => rmSync(directory, { recursive: true }));
const allowed = join(directory, "disk");
const forbidden = join(directory, "forbidden");
writeFileSync(allowed, "what the disk holds\n".padEnd(1 << 20, "\0"), { mode: 0o644 });
writeFileSync(forbidden, Buffer.alloc(4096));

// A directory that somebody else than root may write, and a file that only root may read.
const theirs = join(directory, "theirs");
const disk = join(theirs, "disk.img");
const secret = join(directory, "secret");
const nobody = 65_534;
mkdirSync(theirs);
writeFileSync(disk, "what the disk holds\n".padEnd(1 << 20, "\0"), { mode: 0o644 });
for (const path of [theirs, disk]) chownSync(path, nobody, nobody);
writeFileSync(secret, "root's secret".padEnd(1 << 20, "\0"), { mode: 0o600 });

const held = await HeldRegistry.start();
after(() => held[Symbol.asyncDispose]());

const fixture = Fixture.use((address) => {
  held.target = address;
  return `
      registry "docker.io" { mirrors = ["http://${address}"] }
      registry "held.example" { mirrors = ["http://${held.address}"] }
      allowed_host_paths = ["${allowed}", "${theirs}"]`;
});

const image = 'image = "busybox:latest"';
const drive = (path: string): string => `drive {
  drive_id     = "data"
  path_on_host = "${path}"
}`;

const refusals: readonly { title: string; config: string; says: readonly RegExp[] }[] = [
  { title: "a path that is not allowed", config: drive(forbidden), says: [/path_on_host/, /allowed_host_paths/] },
  {
    title: "a kernel that is not allowed",
    config: `boot_source {\n kernel_image_path = "${forbidden}" \n}`,
    says: [/boot_source\.kernel_image_path/, /allowed_host_paths/],
  },
  {
    title: "a kernel argument of the driver's own",
    config: 'boot_source {\n boot_args = "init=/x" \n}',
    says: [/init/],
  },
  {
    title: "a combination that does not work",
    config: "balloon {\n amount_mib = 192 \n}",
    says: vmm === "firecracker" ? [/balloon\.amount_mib/, /less than the VM's memory/] : [/balloon/, /Firecracker's/],
  },
  {
    title: "more memory than the task reserved",
    config: "mem_size = 2911",
    says: [
      /mem_size = 2911: is more than the task's memory = 192: set resources \{ memory = 2911 \} or config \{ mem_size = 192 \} \(config\)/,
    ],
  },
  {
    title: "more vCPUs than the node has cores",
    config: "vpu_count = 32",
    says: [/vpu_count = 32: is more than the \d+ that a VM may have on this node/],
  },
  {
    title: "a larger disk than the plugin allows",
    config: 'storage_opt = {\n size = "9G" \n}',
    says: [/storage_opt\.size = "9216M": is more than the 8192 MiB that this node's plugin allows \(disk\.max_size\)/],
  },
  {
    title: "huge pages, unless the plugin allows them",
    config: 'machine_config {\n huge_pages = "2M" \n}',
    says: [vmm === "firecracker" ? /allow_huge_pages = true/ : /machine_config|allow_huge_pages/],
  },
];

describe("VM options", { skip: skipVms, concurrency: 3 }, () => {
  for (const { title, config, says } of refusals) {
    it(`refuses ${title}`, async () => {
      const allocation = await startJob({ agent: fixture.agent, config: `${image}\n${config}` });
      assert.equal(await allocation.waitForEnd(30_000), "failed");
      const text = await allocation.eventText();
      for (const pattern of says) assert.match(text, pattern);
    });
  }

  it("a drive is there as a device, written through to the host; kernel arguments reach the kernel", async () => {
    const script = [
      "head -c 20 /dev/vdc",
      "printf 'and what it got' | dd of=/dev/vdc bs=1 seek=64 conv=notrunc 2>/dev/null",
      "sync",
      "cat /proc/cmdline",
      "echo end",
    ].join("; ");
    const allocation = await runJob({
      agent: fixture.agent,
      config: `${image}
        boot_source { boot_args = "mitigations=off" }
        ${drive(allowed)}
        command = "/bin/sh"
        args    = ["-c", ${JSON.stringify(script)}]`,
    });
    assert.equal(await allocation.status(), "complete", await allocation.eventText());
    await allocation.waitForLog(/^end$/m);
    const log = await allocation.log();
    assert.match(log, /^what the disk holds$/m);
    assert.match(log, / mitigations=off/);
    const written = (await readFile(allowed)).toString("latin1", 64, 79);
    assert.equal(written, "and what it got");
  });

  it("a directory of allowed_host_paths that others than root may write is warned of", async () => {
    const info = await fixture.agent.driverInfo();
    assert.ok(info?.Healthy === true);
    const warning = `allowed_host_paths has ${theirs}, and ${theirs} belongs to user ${nobody}`;
    assert.ok(info.HealthDescription.includes(warning), info.HealthDescription);
    assert.ok(info.HealthDescription.includes(`chown root ${theirs}`), info.HealthDescription);
  });

  it("a drive stays the file that was allowed, whatever takes its name during the pull of the image", async () => {
    const script = [
      "head -c 20 /dev/vdc",
      "printf 'and what it got' | dd of=/dev/vdc bs=1 seek=64 conv=notrunc 2>/dev/null",
      "sync",
      "echo end",
    ].join("; ");
    const before = await stat(secret);
    const allocation = await startJob({
      agent: fixture.agent,
      config: `image = "held.example/library/busybox:latest"
        ${drive(disk)}
        command = "/bin/sh"
        args    = ["-c", ${JSON.stringify(script)}]`,
    });
    await held.waitForRequest();
    const kept = join(theirs, "kept.img");
    await rename(disk, kept);
    await symlink(secret, disk);
    held.release();
    assert.equal(await allocation.waitForEnd(), "complete", await allocation.eventText());
    await allocation.waitForLog(/end$/m);
    assert.match(await allocation.log(), /^what the disk holds$/m);
    const after = await stat(secret);
    assert.deepEqual([after.uid, after.gid, after.mode, after.mtimeMs], [0, 0, before.mode, before.mtimeMs]);
    assert.match(await readFile(secret, "latin1"), /^root's secret\0+$/);
    assert.equal((await readFile(kept)).toString("latin1", 64, 79), "and what it got");
    assert.equal((await stat(kept)).uid, nobody);
  });

  it("every other block of Firecracker's at once", {
    skip: vmm === "firecracker" ? false : "these options are Firecracker's",
  }, async () => {
    const bucket = "size = 100000000\nrefill_time = 100";
    const allocation = await runJob({
      agent: fixture.agent,
      config: `${image}
        machine_config { track_dirty_pages = true }
        rate_limiter {
          bandwidth {
            ${bucket}
          }
        }
        balloon { amount_mib = 8 }
        entropy {}
        serial {
          rate_limiter {
            ${bucket}
          }
        }
        logger { level = "Info" }
        metrics {}
        command = "/bin/sh"
        args    = ["-c", "ls /sys/bus/virtio/drivers; echo end"]`,
    });
    assert.equal(await allocation.status(), "complete", await allocation.eventText());
    await allocation.waitForLog(/^end$/m);
    const log = await allocation.log();
    assert.match(log, /^virtio_balloon$/m);
    assert.match(log, /^virtio_rng$/m);
  });
});

describe("after tasks with VM options", { skip: skipVms }, () => {
  it("nothing is left of them", () => waitUntilNoMachineIsLeft(fixture.agent));
});
