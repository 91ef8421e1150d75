import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { type TestContext, test } from "node:test";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { openBeneath } from "../system/host-file.ts";
import { appendInitrd } from "./append-initrd.ts";
import { compareReleases, findCloudKernels } from "./find-kernel.ts";
import { buildInitramfs } from "./initramfs.ts";
import { openKernelImage } from "./kernel-image.ts";
import { collectModules, trimModule } from "./kernel-modules.ts";
import { prepareBoot } from "./prepare-boot.ts";

async function temporary(context: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "litegix-boot-test-"));
  context.after(() => rm(directory, { recursive: true }));
  return directory;
}

function elf(machine = 62): Buffer {
  const content = Buffer.alloc(4096);
  content.write("\x7fELF\x02\x01\x01", 0, "latin1");
  content.writeUInt16LE(machine, 18);
  content.write("Linux version %s (%s)\0Linux version 6.1.0-9-cloud-amd64 (debian) ", 1024, "latin1");
  return content;
}

function bzImage(payload: Buffer): Buffer {
  const setup = Buffer.alloc(5 * 512);
  setup[0x1f1] = 4;
  setup.writeUInt16LE(0xaa55, 0x1fe);
  setup.write("HdrS", 0x202, "latin1");
  setup.writeUInt16LE(0x300 - 0x200 + 0x100, 0x20e);
  setup.write("6.1.0-9-cloud-amd64 (debian)\0", 0x400, "latin1");
  setup.writeUInt32LE(16, 0x248);
  setup.writeUInt32LE(payload.length, 0x24c);
  return Buffer.concat([setup, Buffer.alloc(16), payload]);
}

/** For kernels that are not compressed by LZ4. */
const shimPath = "/nonexistent";
const sizeWord = Buffer.from([0, 16, 0, 0]);

test("an ELF kernel is used where it lies, with its release", async (context) => {
  const directory = await temporary(context);
  const path = join(directory, "vmlinux");
  await writeFile(path, elf());
  const image = await openKernelImage({ path, shimPath, cacheDirectory: join(directory, "cache") });
  assert.deepEqual(image, { vmlinuxPath: path, release: "6.1.0-9-cloud-amd64" });
});

test("a job's ELF kernel is copied, since its path may lead elsewhere by the time that the VM boots", async (context) => {
  const directory = await temporary(context);
  const path = join(directory, "vmlinux");
  await writeFile(path, elf());
  await using file = await openBeneath({ path, roots: [directory] });
  await rm(path);
  await writeFile(path, "another file");
  const cacheDirectory = join(directory, "cache");
  const { vmlinuxPath } = await openKernelImage({ path, file, shimPath, cacheDirectory });
  assert.equal(dirname(vmlinuxPath), cacheDirectory);
  assert.deepEqual(await readFile(vmlinuxPath), elf());
});

test("a kernel is read once, and again if it has changed or its cached ELF is gone", async (context) => {
  const directory = await temporary(context);
  const path = join(directory, "vmlinuz");
  const cacheDirectory = join(directory, "cache");
  const open = (): Promise<{ vmlinuxPath: string }> => openKernelImage({ path, shimPath, cacheDirectory });
  await writeFile(path, bzImage(elf()));
  const first = await open();
  assert.equal(await open(), first);
  await rm(first.vmlinuxPath);
  assert.deepEqual(await open(), first);
  await readFile(first.vmlinuxPath);
  const other = elf();
  other.write("another", 2048);
  await writeFile(path, bzImage(other));
  assert.notEqual((await open()).vmlinuxPath, first.vmlinuxPath);
});

function xz(content: Buffer): Buffer | undefined {
  const { status, stdout } = spawnSync("xz", ["--check=crc32", "--x86", "--lzma2", "--stdout"], { input: content });
  return status === 0 ? Buffer.concat([stdout, sizeWord]) : undefined;
}

/** One block of literals alone, in the frame that kernels use. */
function lz4Legacy(content: Buffer): Buffer {
  const lengths = [0xf0];
  let rest = content.length - 15;
  for (; rest >= 255; rest -= 255) lengths.push(255);
  const block = Buffer.concat([Buffer.from([...lengths, rest]), content]);
  const size = Buffer.alloc(4);
  size.writeUInt32LE(block.length);
  return Buffer.concat([Buffer.from("02214c18", "hex"), size, block, sizeWord]);
}

test("an aarch64 kernel is refused as such", async (context) => {
  const directory = await temporary(context);
  const path = join(directory, "Image");
  const image = Buffer.alloc(4096);
  image.write("ARM\x64", 56, "latin1");
  image.write("Linux version 6.1.0-9-arm64 (debian) ", 1024, "latin1");
  const options = { path, shimPath, cacheDirectory: join(directory, "cache") };
  await writeFile(path, image);
  await assert.rejects(openKernelImage(options), /it is an aarch64 kernel \(Image\); give an ELF vmlinux/);
});

test("a job's initrd goes behind ours, and another file is refused with its kind", async (context) => {
  const directory = await temporary(context);
  const [initramfsPath, initrdPath] = [join(directory, "own"), join(directory, "extra")];
  await writeFile(initramfsPath, "own archive");
  await writeFile(initrdPath, "070701 extra archive");
  const append = async (): Promise<string> => {
    await using initrd = await openBeneath({ path: initrdPath, roots: [directory] });
    return await appendInitrd({ initramfsPath, initrd, cacheDirectory: join(directory, "cache") });
  };
  const path = await append();
  assert.equal(await readFile(path, "utf8"), "own archive070701 extra archive");
  assert.equal(await append(), path);
  await writeFile(initrdPath, "hsqs, a squashfs");
  await assert.rejects(append(), /extra is not an initrd: it is a squashfs image; give a cpio archive/);
});

for (const [name, payload] of [
  ["LZ4", lz4Legacy(elf())],
  ["xz", xz(elf())],
  ["gzip", gzipSync(elf())],
  ["zstd", Buffer.concat([zstdCompressSync(elf()), sizeWord])],
  ["uncompressed", elf()],
] as const) {
  const skip = payload === undefined ? "no xz program" : false;
  test(`a bzImage's ${name} payload becomes an ELF in the cache, once`, { skip }, async (context) => {
    assert.ok(payload !== undefined);
    const directory = await temporary(context);
    const path = join(directory, "vmlinuz");
    await writeFile(path, bzImage(payload));
    // The frame ends with its literals, which are the content.
    const shim = join(directory, "shim");
    await writeFile(shim, '#!/bin/sh\n[ "$1" = unlz4 ] && tail -c "$2" >"$3"\n', { mode: 0o755 });
    const options = { path, shimPath: shim, cacheDirectory: join(directory, "cache") };
    const image = await openKernelImage(options);
    assert.deepEqual(await readFile(image.vmlinuxPath), elf());
    assert.equal(image.release, "6.1.0-9-cloud-amd64");
    assert.deepEqual(await openKernelImage(options), image);
  });
}

for (const [name, content, expected] of [
  ["empty", Buffer.alloc(0), /the file is empty/],
  ["text", Buffer.from("dummy\n".repeat(100)), /it is a text file/],
  ["an initramfs", Buffer.from("070701".padEnd(600, "0")), /it is a cpio archive/],
  ["gzip data", gzipSync("x"), /it is gzip data/],
  ["a disk image", Buffer.from("QFI\xfb".padEnd(600, "0"), "latin1"), /it is a QCOW2 disk image/],
  ["a bzImage of an unknown compression", bzImage(Buffer.from("BZh9".padEnd(600, "0"))), /it is bzip2 data; known are/],
  ["zeros", Buffer.alloc(4096), /begins with zeros/],
  ["another machine's ELF", elf(183), /another machine/],
  ["a short file", Buffer.from([1]), /it is something unknown \(first bytes 01\)/],
] as const) {
  test(`${name} is refused with its kind and the cure`, async (context) => {
    const directory = await temporary(context);
    const path = join(directory, "dummy");
    await writeFile(path, content);
    await assert.rejects(openKernelImage({ path, shimPath, cacheDirectory: directory }), (error: Error) => {
      assert.match(error.message, expected);
      assert.match(error.message, /unset vmlinux_path/);
      assert.ok(error.message.includes(path));
      return true;
    });
  });
}

test("the newest cloud kernel comes first; other kernels are left out", async (context) => {
  const root = await temporary(context);
  await mkdir(join(root, "boot"));
  for (const release of ["6.1.0-9-cloud-amd64", "6.1.0-56-cloud-amd64", "6.9.0-1-amd64"]) {
    await writeFile(join(root, "boot", `vmlinuz-${release}`), "");
  }
  const found = await findCloudKernels({ roots: [root, join(root, "missing")] });
  assert.deepEqual(
    found.map((candidate) => candidate.release),
    ["6.1.0-56-cloud-amd64", "6.1.0-9-cloud-amd64"],
  );
  assert.ok(compareReleases("6.1.0-9", "6.1.0-56") < 0);
});

async function writeModules(directory: string, modules: Record<string, string[]>): Promise<void> {
  const order: string[] = [];
  for (const [name, depends] of Object.entries(modules)) {
    const path = join(directory, "kernel", `${name}.ko`);
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, `\x7fELF\0license=GPL\0depends=${depends.join(",")}\0name=${name}\0`);
    order.push(`kernel/${name}.ko`);
  }
  await writeFile(join(directory, "modules.order"), `${order.join("\n")}\n`);
  await writeFile(join(directory, "modules.builtin"), "kernel/fs/overlayfs/overlay.ko\n");
}

const modules = {
  virtio_mmio: ["virtio", "virtio_ring"],
  virtio: ["virtio_ring"],
  virtio_ring: [],
  virtio_blk: ["virtio", "virtio_ring"],
  squashfs: [],
  vmw_vsock_virtio_transport: ["vsock"],
  vsock: [],
};

test("modules come after what they depend on; built-in ones are left out", async (context) => {
  const directory = await temporary(context);
  await writeModules(directory, modules);
  const names = (await collectModules({ directory })).map((module) => module.fileName);
  assert.deepEqual(names, [
    "virtio_ring.ko",
    "virtio.ko",
    "virtio_mmio.ko",
    "vsock.ko",
    "vmw_vsock_virtio_transport.ko",
    "virtio_blk.ko",
    "squashfs.ko",
  ]);
});

test("a module of a device or of a hypervisor is loaded only there, with its dependencies", async (context) => {
  const directory = await temporary(context);
  await writeModules(directory, {
    ...modules,
    ...{ virtio_net: ["net_failover", "virtio"], net_failover: [], ptp_kvm: ["ptp"], ptp: [] },
  });
  const collected = await collectModules({ directory });
  const conditional = collected.filter((module) => module.condition !== undefined);
  assert.deepEqual(
    conditional.map(({ fileName, condition }) => [fileName, condition]),
    [
      ["net_failover.ko", 1],
      ["virtio_net.ko", 1],
      ["ptp.ko", "kvm"],
      ["ptp_kvm.ko", "kvm"],
    ],
  );
  const archive = buildInitramfs({ init: Buffer.from("init"), modules: collected }).toString("latin1");
  assert.ok(archive.includes("squashfs.ko\nnet_failover.ko 1\nvirtio_net.ko 1\nptp.ko kvm\nptp_kvm.ko kvm\n"));
});

test("a module is packed without its signature and with its type information hidden", () => {
  const names = Buffer.from("\0.text\0.BTF\0.BTF_ids\0");
  const signature = Buffer.alloc(100, 7);
  const facts = Buffer.alloc(12);
  facts.writeUInt32BE(signature.length, 8);
  const marker = Buffer.from("~Module signature appended~\n");
  const trimmed = trimModule(Buffer.concat([Buffer.from("\x7fELF.."), names, signature, facts, marker]));
  assert.deepEqual(trimmed, Buffer.from("\x7fELF..\0.text\0.xTF\0.BTF_ids\0"));
  // A length beyond the file is not a signature's.
  facts.writeUInt32BE(1_000_000, 8);
  const odd = Buffer.concat([Buffer.from("ELF"), facts, marker]);
  assert.deepEqual(trimModule(odd), odd);
  const plain = Buffer.from("no signature");
  assert.deepEqual(trimModule(plain), plain);
});

test("a missing module is named", async (context) => {
  const directory = await temporary(context);
  const { squashfs: _, ...rest } = modules;
  await writeModules(directory, rest);
  await assert.rejects(collectModules({ directory }), /kernel module squashfs is neither in/);
});

test("the same input gives the same initramfs, 4-byte aligned and ended", () => {
  const content = { init: Buffer.from("init"), modules: [{ fileName: "a.ko", content: Buffer.from("12345") }] };
  const archive = buildInitramfs(content);
  assert.deepEqual(archive, buildInitramfs(content));
  assert.equal(archive.length % 4, 0);
  assert.ok(archive.includes("TRAILER!!!"));
});

test("without any kernel the error names the searched places and the package to install", async (context) => {
  const directory = await temporary(context);
  const prepared = prepareBoot({
    vmlinuxPath: join(directory, "none"),
    kernelsDirectory: join(directory, "kernels"),
    cacheDirectory: join(directory, "boot"),
    init: Buffer.from("init"),
    shimPath,
  });
  await assert.rejects(prepared, /there is no such file/);
});

test("a kernel without a modules folder has everything built in: its initramfs holds init alone", async (context) => {
  const directory = await temporary(context);
  const vmlinuxPath = join(directory, "vmlinux-ci");
  const kernel = elf();
  // Firecracker's CI kernels call themselves so; no folder of modules has the name.
  kernel.write("Linux version 6.1.141 (root@ci) \0", 1042, "latin1");
  await writeFile(vmlinuxPath, kernel);
  const init = Buffer.from("init");
  const boot = await prepareBoot({
    vmlinuxPath,
    kernelsDirectory: join(directory, "kernels"),
    cacheDirectory: join(directory, "boot"),
    init,
    shimPath,
  });
  assert.equal(boot.vmlinuxPath, vmlinuxPath);
  assert.equal(boot.release, "6.1.141");
  assert.deepEqual(await readFile(boot.initramfsPath), buildInitramfs({ init, modules: [] }));
});

test("the modules beside a job's kernel come from allowed paths only", async (context) => {
  const directory = await temporary(context);
  const allowed = join(directory, "allowed");
  const kernel = join(allowed, "boot/vmlinux");
  const folder = join(allowed, "lib/modules/6.1.0-9-cloud-amd64");
  await mkdir(dirname(kernel), { recursive: true });
  await writeFile(kernel, elf());
  await writeModules(folder, modules);
  await writeFile(join(directory, "secret"), "root's secret");
  await using file = await openBeneath({ path: kernel, roots: [allowed] });
  const prepare = async (): Promise<Buffer> => {
    const read = async (path: string): Promise<Buffer> => {
      await using module = await openBeneath({ path, roots: [allowed] });
      return await module.read(1 << 20);
    };
    const { initramfsPath } = await prepareBoot({
      vmlinuxPath: undefined,
      jobKernel: { file, read },
      kernelsDirectory: join(directory, "kernels"),
      cacheDirectory: join(directory, "cache"),
      init: Buffer.from("init"),
      shimPath,
    });
    return await readFile(initramfsPath);
  };
  assert.ok((await prepare()).includes("squashfs.ko"));
  const module = join(folder, "kernel/squashfs.ko");
  await rm(module);
  await symlink(join(directory, "secret"), module);
  await assert.rejects(prepare(), { code: "kernel_module_missing" });
  await writeFile(join(folder, "modules.order"), "../../../../secret/squashfs.ko\n", { flag: "a" });
  await assert.rejects(prepare(), { code: "kernel_module_missing" });
});
