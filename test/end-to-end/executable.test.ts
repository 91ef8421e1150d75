// The one executable, started by hand: its commands, and a proof that it computes the same as its sources. It is a
// minified bundle on a stripped Node, and V8 has damaged such code before.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { chmod, copyFile, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { after, before, describe, it } from "node:test";
import { openKernelImage } from "../../src/boot/kernel-image.ts";
import { magicCookie } from "../../src/nomad/handshake.ts";
import { type CommandResult, run, runSuccessfully } from "./support/command.ts";
import { driverPath, kernelDirectory, skipVms } from "./support/environment.ts";
import { shimPath } from "./support/shim.ts";

let directory: string;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "lge2e-cli-"));
});
after(() => rm(directory, { recursive: true, force: true }));

async function driver(args: readonly string[]): Promise<CommandResult> {
  return await run({ file: driverPath, args });
}

describe("the command line", () => {
  for (const args of [
    ["--help"],
    ["version", "--help"],
    ["doctor", "--help"],
    ["inspect", "--help"],
    ["help", "doctor"],
  ]) {
    it(`${args.join(" ")} explains`, async () => {
      const { exitCode, stdout, stderr } = await driver(args);
      assert.equal(exitCode, 0, stderr);
      assert.match(stdout, /^Usage: litegix-fc-driver/);
    });
  }

  it("version, in an empty environment: no Node is needed", async () => {
    const { exitCode, stdout } = await run({ file: "/usr/bin/env", args: ["-i", driverPath, "version"] });
    assert.equal(exitCode, 0);
    assert.match(stdout, /^litegix-fc-driver \d+\.\d+\.\d+ \(guest protocol 1, Node \d+\.\d+\.\d+, x64\)\n$/);
  });

  it("an unknown command is refused with a hint", async () => {
    const { exitCode, stderr } = await driver(["bake"]);
    assert.notEqual(exitCode, 0);
    assert.match(stderr, /unknown command 'bake'[\s\S]*--help/);
  });

  it("doctor says what is missing, and exits with 1", async () => {
    const { exitCode, stdout } = await driver([
      ...["doctor", "--rootfs-base-path", join(directory, "none")],
      ...["--vmlinux-path", "/etc/hostname"],
    ]);
    assert.equal(exitCode, 1);
    assert.match(stdout, /^not ready: .*\/etc\/hostname/);
  });
});

describe("doctor --json alone", () => {
  it("is refused with the option that it needs", async () => {
    const { exitCode, stdout, stderr } = await driver(["doctor", "--json"]);
    assert.deepEqual([exitCode, stdout], [1, ""]);
    assert.match(stderr, /^--json needs --production/);
  });
});

describe("started as a plugin by a host that asks for AutoMTLS", () => {
  it("ends with one sentence", async () => {
    const env = { [magicCookie.name]: magicCookie.value, PLUGIN_CLIENT_CERT: "-----BEGIN CERTIFICATE-----" };
    const { exitCode, stdout, stderr } = await run({ file: driverPath, args: [], env });
    assert.equal(exitCode, 1);
    assert.equal(stdout, "");
    assert.match(stderr, /^litegix-fc-driver does not speak TLS: [^\n]*PLUGIN_CLIENT_CERT[^\n]*\n$/);
  });
});

describe("doctor by a user other than root", () => {
  it("says so", async () => {
    // A directory that the user nobody may read.
    const place = await mkdtemp(join(tmpdir(), "lge2e-nobody-"));
    try {
      await chmod(place, 0o755);
      const copy = join(place, "litegix-fc-driver");
      await copyFile(driverPath, copy);
      const args = ["--reuid=65534", "--regid=65534", "--clear-groups", copy, "doctor", "--rootfs-base-path"];
      const { exitCode, stdout, stderr } = await run({ file: "setpriv", args: [...args, join(place, "base")] });
      assert.equal(exitCode, 1);
      assert.match(`${stdout}${stderr}`, /the Nomad agent must run as root to start microVMs/);
    } finally {
      await rm(place, { recursive: true });
    }
  });
});

describe("doctor on a host without /dev/net/tun", { skip: skipVms }, () => {
  it("says that there are no networks, how to get them, and that VMs run", async () => {
    const base = join(directory, "no-tun");
    await mkdir(join(base, "kernels"), { recursive: true });
    await symlink(kernelDirectory, join(base, "kernels", basename(kernelDirectory)));
    // In a mount namespace of its own.
    const hide = 'mount -t tmpfs none /dev/net && exec "$0" "$@"';
    const { stdout, exitCode } = await run({
      file: "unshare",
      args: ["--mount", "/bin/sh", "-c", hide, driverPath, "doctor", "--rootfs-base-path", base],
    });
    assert.equal(exitCode, 0, stdout);
    assert.match(stdout, /^ready$/m);
    assert.match(stdout, /default: there is no \/dev\/net\/tun: load the kernel module tun \(modprobe tun\)/);
    assert.match(stdout, /bridge, CNI: there is no \/dev\/net\/tun/);
  });
});

describe("the programs that the executable brings along", { skip: skipVms }, () => {
  it("are compared byte for byte, and replaced", async () => {
    const base = join(directory, "exchanged");
    await mkdir(join(base, "kernels"), { recursive: true });
    await symlink(kernelDirectory, join(base, "kernels", basename(kernelDirectory)));
    const doctor = { file: driverPath, args: ["doctor", "--rootfs-base-path", base] };
    await run(doctor);
    const bin = join(base, "bin");
    const before = await contentsOf(bin);
    assert.equal(before.size, 2);
    for (const [name, content] of before) {
      await writeFile(join(bin, name), "#!/bin/sh\n".padEnd(content.length, "#"));
    }
    await run(doctor);
    assert.deepEqual(await contentsOf(bin), before);
  });
});

async function contentsOf(path: string): Promise<Map<string, Buffer>> {
  const names = (await readdir(path)).toSorted();
  return new Map(await Promise.all(names.map(async (name) => [name, await readFile(join(path, name))] as const)));
}

describe("the kernel that the executable extracts", () => {
  it("is the lz4 program's to the byte, every time", async (context) => {
    const boot = join(kernelDirectory, "boot");
    const image = (await readdir(boot)).find((name) => name.startsWith("vmlinuz-"));
    assert.ok(image);
    const path = join(boot, image);
    const { vmlinuxPath } = await openKernelImage({ path, shimPath, cacheDirectory: join(directory, "boot") });
    const expected = await sha256(vmlinuxPath);
    const byProgram = await extractByLz4(path);
    if (byProgram === undefined)
      context.diagnostic("this kernel is not LZ4: compared with the sources' extraction only");
    else assert.equal(expected, byProgram);
    for (let round = 0; round < 3; round++) {
      const base = join(directory, `round${round}`);
      await mkdir(join(base, "kernels"), { recursive: true });
      await symlink(kernelDirectory, join(base, "kernels", basename(kernelDirectory)));
      // Hides the system's own kernels, which may be newer.
      const hide = 'mount -t tmpfs none /boot && exec "$0" "$@"';
      await run({
        file: "unshare",
        args: ["--mount", "/bin/sh", "-c", hide, driverPath, "doctor", "--rootfs-base-path", base],
      });
      assert.equal(await sha256(join(base, "boot", basename(vmlinuxPath))), expected);
    }
  });
});

/** The sha256 of the kernel in a bzImage by another decoder than ours; undefined unless its payload is LZ4's legacy frame. */
async function extractByLz4(path: string): Promise<string | undefined> {
  const content = await readFile(path);
  // Documentation/arch/x86/boot.rst of Linux: setup_sects, payload_offset, payload_length. The last four bytes are the kernel's size.
  const start = ((content[0x1f1] || 4) + 1) * 512 + content.readUInt32LE(0x248);
  const payload = content.subarray(start, start + content.readUInt32LE(0x24c) - 4);
  if (payload.readUInt32LE(0) !== 0x184c2102) return undefined;
  const [compressed, kernel] = [join(directory, "payload.lz4"), join(directory, "payload")];
  await writeFile(compressed, payload);
  await runSuccessfully({ file: "lz4", args: ["-d", "-q", "-f", compressed, kernel] });
  return await sha256(kernel);
}

async function sha256(path: string): Promise<string> {
  return createHash("sha256")
    .update(await readFile(path))
    .digest("hex");
}
