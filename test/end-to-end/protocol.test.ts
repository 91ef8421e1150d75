// The plugin as Nomad and an operator see it before any job: it loads, reports its health, and says what is missing.
// Each case with a broken host has its own agent, since the agent's environment is broken.
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdtemp, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, delimiter, join } from "node:path";
import { after, before, describe, it } from "node:test";
import { findCloudKernels } from "../../src/boot/find-kernel.ts";
import { openKernelImage } from "../../src/boot/kernel-image.ts";
import { Agent, driverName } from "./support/agent.ts";
import { runJob, startJob } from "./support/allocation.ts";
import { busyboxLayout, findFirecracker, kernelDirectory, skipVms, vmm } from "./support/environment.ts";
import { Registry } from "./support/registry.ts";
import { shimPath } from "./support/shim.ts";
import { waitFor } from "./support/wait.ts";

const [ownKernel] = await findCloudKernels({ roots: ["/"] });
const skipWithoutKernel = ownKernel === undefined ? false : `this host has a kernel in /boot: ${ownKernel.kernelPath}`;

describe("the plugin on a host that has everything", { skip: skipVms }, () => {
  let agent: Agent;
  before(async () => {
    agent = await Agent.start();
  });
  after(() => agent[Symbol.asyncDispose]());

  it("is healthy", async () => {
    const info = await agent.driverInfo();
    assert.ok(info);
    assert.ok(info.Detected, info.HealthDescription);
    assert.ok(info.Healthy, info.HealthDescription);
  });

  it("reports version, VMM, kernel and acceleration as attributes", async () => {
    const { Attributes: attributes } = await agent.node();
    const fact = (name: string): string => attributes[`driver.${driverName}${name}`] ?? "";
    assert.match(fact(""), /^(1|true)$/);
    assert.match(fact(".version"), /^\d+\.\d+\.\d+/);
    assert.match(fact(".vmm"), vmm === "auto" ? /^(qemu|firecracker)$/ : new RegExp(`^${vmm}$`));
    assert.match(fact(".vmm_version"), /^\d+\.\d+/);
    assert.ok(fact(".vmm_reason").length > 10, "a reason");
    assert.match(fact(".kernel_version"), /^\d+\.\d+/);
    assert.match(fact(".acceleration"), /^(kvm|emulation)$/);
  });

  it("shows in nomad node status", async () => {
    const { stdout } = await agent.nomad(["node", "status", "-self", "-verbose"]);
    assert.match(stdout, new RegExp(`${driverName} +true +true`));
  });

  it("logs into the agent's log under the driver's name, with levels", async () => {
    const line = await waitFor({
      what: "a log line of the plugin",
      timeoutMs: 10_000,
      attempt: async () =>
        (await agent.log()).split("\n").find((text) => text.includes(`client.driver_mgr.${driverName}`)),
    });
    assert.match(line, /\[(TRACE|DEBUG|INFO|WARN|ERROR)\]/);
  });

  it("prints nothing that Nomad does not understand", async () => {
    const log = await agent.log();
    assert.doesNotMatch(log, /\[ERROR\].*litegix/);
    assert.doesNotMatch(log, /@message|Unrecognized remote plugin/);
  });
});

/** A directory with everything on PATH but the given programs. */
async function pathWithout(programs: readonly string[]): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "lge2e-path-"));
  for (const source of (process.env["PATH"] ?? "").split(delimiter)) {
    for (const name of await readdir(source).catch(() => [] as string[])) {
      if (!programs.includes(name)) await symlink(join(source, name), join(directory, name)).catch(() => {});
    }
  }
  return directory;
}

const skipWithFirecracker = findFirecracker() !== undefined && "its path would be given twice";

describe("the plugin on a host that lacks something loads and says what", { skip: skipVms }, () => {
  const scratch: string[] = [];
  after(() => Promise.all(scratch.map((path) => rm(path, { recursive: true, force: true }))));

  async function descriptionOf(options: Parameters<typeof Agent.start>[0]): Promise<string> {
    await using agent = await Agent.start(options);
    const info = await agent.driverInfo();
    assert.equal(info?.Healthy, false);
    return info.HealthDescription;
  }

  async function pathLacking(...programs: string[]): Promise<string> {
    const directory = await pathWithout(programs);
    scratch.push(directory);
    return directory;
  }

  it("mksquashfs", async () => {
    const description = await descriptionOf({ env: { PATH: await pathLacking("mksquashfs") } });
    assert.match(description, /mksquashfs/);
    assert.match(description, /squashfs-tools/);
  });

  it("a base path of root's own", async () => {
    const description = await descriptionOf({ baseOwner: 65_534 });
    assert.match(description, /^rootfs_base_path \S+ can't be trusted: \S+\/base belongs to user 65534/);
    assert.match(description, /chown root \S+\/base, or choose another path \(untrusted_path\)$/);
  });

  it("QEMU, with vmm = qemu", async () => {
    const description = await descriptionOf({
      vmm: "qemu",
      env: { PATH: await pathLacking("qemu-system-x86_64") },
    });
    assert.match(description, /qemu-system-x86/);
  });

  it("Firecracker, with vmm = firecracker", async () => {
    const description = await descriptionOf({
      vmm: "firecracker",
      pluginConfig: 'firecracker_path = "/nonexistent/firecracker"',
    });
    assert.match(description, /firecracker/i);
    assert.match(description, /install|firecracker_path|KVM/);
  });

  it("KVM for its Firecracker, with vmm = auto: it does not go on with QEMU", {
    skip: skipWithFirecracker,
  }, async () => {
    const directory = await mkdtemp(join(tmpdir(), "lge2e-fc-"));
    scratch.push(directory);
    const firecracker = join(directory, "firecracker");
    await writeFile(firecracker, "#!/bin/sh\necho Firecracker v1.16.1\n", { mode: 0o755 });
    const description = await descriptionOf({
      vmm: "auto",
      pluginConfig: `firecracker_path = "${firecracker}"\njailer {\n enabled = false \n}`,
    });
    assert.match(description, /^Firecracker can't run guests: .*KVM|kvm/);
    assert.match(description, /"auto" takes nothing else: cure this, or set vmm = "qemu" \(vmm_unusable\)$/);
  });

  it("nft: it is healthy, says that there are no networks, and runs tasks without one", async () => {
    await using registry = await Registry.start();
    await registry.push({ source: `oci:${busyboxLayout}:latest`, name: "library/busybox:latest" });
    await using agent = await Agent.start({
      env: { PATH: await pathLacking("nft") },
      pluginConfig: `registry "docker.io" { mirrors = ["http://${registry.address}"] }`,
    });
    const { Attributes: attributes, Drivers: drivers } = await agent.node();
    assert.equal(drivers[driverName]?.Healthy, true);
    const reason = "nft can't be run: install Debian's nftables";
    for (const mode of ["default", "group"]) {
      assert.match(attributes[`driver.${driverName}.network.${mode}`] ?? "", /^(0|false)$/);
      assert.equal(attributes[`driver.${driverName}.network.${mode}_reason`], reason);
    }
    const config = 'image = "busybox:latest"\ncommand = "/bin/true"';
    const without = await runJob({ agent, config: `${config}\nnetwork_mode = "none"` });
    assert.equal((await without.exit()).exitCode, 0);
    const refused = await startJob({ agent, config });
    assert.equal(await refused.waitForEnd(), "failed");
    assert.match(await refused.eventText(), /nft can't be run: install Debian's nftables/);
  });

  it("CNI plugins: it is healthy, says that there is no bridge mode, and runs tasks in the default one", async () => {
    await using registry = await Registry.start();
    await registry.push({ source: `oci:${busyboxLayout}:latest`, name: "library/busybox:latest" });
    const directories = ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"];
    await using agent = await Agent.start({
      hidden: directories.filter((path) => existsSync(path)),
      pluginConfig: `registry "docker.io" { mirrors = ["http://${registry.address}"] }`,
    });
    const { Attributes: attributes, Drivers: drivers } = await agent.node();
    assert.equal(drivers[driverName]?.Healthy, true);
    assert.match(
      attributes[`driver.${driverName}.network.bridge_reason`] ?? "",
      /needs the CNI plugins .*: no loopback, bridge, .* in \/opt\/cni\/bin, .*containernetworking-plugins/,
    );
    const config = 'image = "busybox:latest"\ncommand = "/bin/true"';
    assert.equal((await (await runJob({ agent, config })).exit()).exitCode, 0);
  });

  it("a kernel", { skip: skipWithoutKernel }, async () => {
    const description = await descriptionOf({ kernel: false });
    assert.match(description, /kernel/);
    assert.match(description, /vmlinux_path/);
    assert.match(description, /linux-image-cloud-amd64/);
  });

  for (const kind of ["bzImage", "ELF"] as const) {
    it(`a kernel, except the one at vmlinux_path (${kind}): tasks run on that`, async () => {
      const directory = await mkdtemp(join(tmpdir(), "lge2e-kernel-"));
      scratch.push(directory);
      const boot = join(kernelDirectory, "boot");
      const bzImage = join(boot, (await readdir(boot)).find((name) => name.startsWith("vmlinuz-")) ?? "");
      const path =
        kind === "bzImage"
          ? bzImage
          : (await openKernelImage({ path: bzImage, shimPath, cacheDirectory: directory })).vmlinuxPath;
      await using registry = await Registry.start();
      await registry.push({ source: `oci:${busyboxLayout}:latest`, name: "library/busybox:latest" });
      await using agent = await Agent.start({
        kernel: "modules",
        pluginConfig: `vmlinux_path = "${path}"\nregistry "docker.io" { mirrors = ["http://${registry.address}"] }`,
      });
      const task = await runJob({ agent, config: 'image = "busybox:latest"\ncommand = "uname"\nargs = ["-r"]' });
      assert.equal(`vmlinuz-${(await task.log()).trim()}`, basename(bzImage));
    });
  }

  it("a kernel at vmlinux_path: an empty file, as `touch` makes it", async () => {
    const directory = await mkdtemp(join(tmpdir(), "lge2e-kernel-"));
    scratch.push(directory);
    const dummy = join(directory, "vmlinux");
    await writeFile(dummy, "");
    const description = await descriptionOf({ pluginConfig: `vmlinux_path = "${dummy}"` });
    assert.ok(description.includes(dummy), description);
    assert.match(description, /empty/);
    assert.match(description, /vmlinux_path/);
  });

  it("a kernel at vmlinux_path: a file that is not a kernel", async () => {
    const description = await descriptionOf({ pluginConfig: 'vmlinux_path = "/bin/ls"' });
    assert.match(description, /\/bin\/ls/);
    assert.match(description, /vmlinux/);
  });
});
