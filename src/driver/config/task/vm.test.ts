import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { VmOptions } from "../../../vmm/vm-options.ts";
import { ConfigError } from "../../errors.ts";
import { checkVmOptions, type VmFacts } from "../../start/vm-rules.ts";
import { openAllowedPath } from "../host-paths.ts";
import { parseVm } from "./vm.ts";

test("nothing set asks for nothing", () => {
  assert.deepEqual(parseVm({}), {
    bootSource: { bootArgs: [], kernelImagePath: undefined, initrdPath: undefined },
    options: {},
  });
});

test("the blocks become Firecracker's bodies, word for word", () => {
  const bucket = { size: 1_000_000, refill_time: 100 };
  const { bootSource, options } = parseVm({
    boot_source: { boot_args: "mitigations=off  foo", kernel_image_path: "/k" },
    machine_config: { smt: "true", huge_pages: "2M", cpu_template: "T2", track_dirty_pages: null },
    drive: [
      { drive_id: "data", path_on_host: "/dev/vg/data", rate_limiter: { bandwidth: bucket } },
      { drive_id: "more", path_on_host: "/x", is_read_only: true, io_engine: "Async", cache_type: "Writeback" },
    ],
    rate_limiter: { ops: { ...bucket, one_time_burst: 5 } },
    balloon: { amount_mib: 10 },
    entropy: {},
    mmds: { contents: '{"a":{"b":1}}', imds_compat: true },
    serial: { rate_limiter: bucket },
    logger: { level: "Debug" },
    metrics: {},
  });
  assert.deepEqual(bootSource.bootArgs, ["mitigations=off", "foo"]);
  assert.deepEqual(options, {
    machineConfig: { smt: true, huge_pages: "2M", cpu_template: "T2" },
    drives: [
      {
        drive_id: "data",
        path_on_host: "/dev/vg/data",
        is_read_only: false,
        cache_type: "Unsafe",
        io_engine: "Sync",
        rate_limiter: { bandwidth: bucket },
      },
      { drive_id: "more", path_on_host: "/x", is_read_only: true, cache_type: "Writeback", io_engine: "Async" },
    ],
    rateLimiter: { ops: { ...bucket, one_time_burst: 5 } },
    balloon: { amount_mib: 10, deflate_on_oom: true },
    entropy: {},
    mmds: { config: { version: "V2", imds_compat: true }, contents: { a: { b: 1 } } },
    serial: { rate_limiter: bucket },
    logger: { level: "Debug" },
    metrics: true,
  });
});

const refusals: readonly (readonly [config: Record<string, unknown>, message: RegExp])[] = [
  [{ boot_source: { boot_args: "init=/bin/sh" } }, /boot_source\.boot_args.*must not hold init/],
  [{ boot_source: { boot_args: "nomodule" } }, /must not hold nomodule/],
  [{ boot_source: { boot_args: "a\nb" } }, /printable ASCII/],
  [{ boot_source: { kernel_image_path: "vmlinux" } }, /kernel_image_path.*absolute path/],
  [{ machine_config: { huge_pages: "1G" } }, /huge_pages = "1G": must be "None" or "2M"/],
  [{ drive: [{ drive_id: "a-b", path_on_host: "/x" }] }, /drive\.drive_id/],
  [{ drive: [{ drive_id: "drive0", path_on_host: "/x" }] }, /drive\.drive_id/],
  [{ drive: [{ drive_id: "a" }] }, /drive a\.path_on_host: is required/],
  [
    {
      drive: [
        { drive_id: "a", path_on_host: "/x" },
        { drive_id: "a", path_on_host: "/y" },
      ],
    },
    /is given twice/,
  ],
  [{ rate_limiter: {} }, /needs bandwidth/],
  [{ rate_limiter: { ops: { size: 1 } } }, /rate_limiter\.ops: needs size .* and refill_time/],
  [{ rate_limiter: { ops: { size: 0, refill_time: 1 } } }, /rate_limiter\.ops\.size = 0/],
  [{ mmds: { ipv4_address: "10.0.0.1" } }, /link-local/],
  [{ mmds: { contents: "[1]" } }, /must be a map/],
  [{ logger: { level: "Loud" } }, /must be "Error", "Warning"/],
];

for (const [config, message] of refusals) {
  test(`refused: ${JSON.stringify(config)}`, () => {
    assert.throws(
      () => parseVm(config),
      (error: unknown) => error instanceof ConfigError && message.test(error.message),
    );
  });
}

const facts: VmFacts = {
  vmm: "firecracker",
  vcpuCount: 3,
  memSizeMib: 255,
  networkInterfaces: 0,
  allowHugePages: true,
};
const drive = (index: number): NonNullable<VmOptions["drives"]>[number] => ({
  drive_id: `d${index}`,
  path_on_host: "/x",
});
const combinations: readonly (readonly [options: VmOptions, facts: VmFacts, message: RegExp])[] = [
  [{ balloon: { amount_mib: 1, deflate_on_oom: true } }, { ...facts, vmm: "qemu" }, /balloon: is Firecracker's/],
  [{ machineConfig: { smt: true } }, facts, /smt = true: needs one vCPU or an even number of them; the VM has 3/],
  [
    { machineConfig: { huge_pages: "2M" } },
    { ...facts, memSizeMib: 256, allowHugePages: false },
    /huge_pages = "2M": is not allowed on this node: set allow_huge_pages = true in the plugin's config/,
  ],
  [{ machineConfig: { huge_pages: "2M" } }, facts, /multiple of 2 MiB; the VM has 255/],
  [{ machineConfig: { huge_pages: "2M" } }, { ...facts, memSizeMib: 1 << 22 }, /free huge pages on the host/],
  [{ balloon: { amount_mib: 255, deflate_on_oom: true } }, facts, /less than the VM's memory, which is 255 MiB/],
  [{ mmds: { config: {}, contents: {} } }, facts, /mmds: needs a network interface/],
  [{ drives: Array.from({ length: 15 }, (_, index) => drive(index)) }, facts, /at most 17 devices, and 3 are taken/],
];

for (const [options, given, message] of combinations) {
  test(`does not fit together: ${message.source}`, async () => {
    await assert.rejects(checkVmOptions(options, given), message);
  });
}

test("what fits is let through; extra drives also on QEMU", async () => {
  await checkVmOptions({ drives: [drive(1)] }, { ...facts, vmm: "qemu" });
  await checkVmOptions({ machineConfig: { smt: true }, entropy: {} }, { ...facts, vcpuCount: 2 });
});

test("a job may name only what the plugin's list holds, wherever links lead", async (context) => {
  const directory = await mkdtemp(join(tmpdir(), "litegix-paths-"));
  context.after(() => rm(directory, { recursive: true }));
  await mkdir(join(directory, "disks"));
  await writeFile(join(directory, "disks/a"), "");
  await writeFile(join(directory, "secret"), "");
  await symlink("../secret", join(directory, "disks/link"));
  const allowed = [join(directory, "disks")];
  const ask = async (path: string, list = allowed): Promise<string> => {
    await using file = await openAllowedPath({ key: "drive a.path_on_host", path, allowed: list, kinds: ["file"] });
    return file.path;
  };
  assert.equal(await ask(join(directory, "disks/a")), join(directory, "disks/a"));
  await assert.rejects(
    ask(join(directory, "disks/a"), []),
    /allowed_host_paths in the plugin's config, which is empty/,
  );
  await assert.rejects(ask(join(directory, "secret")), /is not allowed/);
  await assert.rejects(ask(`${directory}/disks/../secret`), /is not allowed/);
  await assert.rejects(ask(join(directory, "disks/link")), /is not allowed/);
  await assert.rejects(ask(`${directory}/disks-not`), /is not allowed/);
  await assert.rejects(ask(join(directory, "disks/none")), /does not exist/);
  await assert.rejects(ask(join(directory, "disks")), /is not a file/);
});
