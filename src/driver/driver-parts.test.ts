import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { HclSpec } from "./config/hcl-spec.ts";
import { parsePluginConfig } from "./config/plugin/plugin-config.ts";
import { pluginConfigSchema, taskConfigSchema } from "./config/schemas.ts";
import { parseTaskConfig } from "./config/task/task-config.ts";
import { machineSize } from "./start/machine-size.ts";
import { decodeDriverState, encodeDriverState } from "./task/recover-task.ts";
import { signalNumber } from "./task/signals.ts";

const resources = { cpuMhz: 100, cpusetCpus: "", cpusetCgroup: "", memoryMib: 300, memoryMaxMib: 0 };
const settings = parseTaskConfig({ image: "x" });

test("the VM's size comes from the config, else from reserved cores, else from MHz rounded up", () => {
  const size = (more: object, own = settings): number =>
    machineSize({ settings: own, resources: { ...resources, ...more }, coreMhz: 2000, hostCores: 8 }).vcpuCount;
  assert.equal(size({}), 1);
  assert.equal(size({ cpuMhz: 4100 }), 3);
  assert.equal(size({ cpusetCpus: "0,2-3" }), 3);
  assert.equal(size({ cpusetCpus: "0,2-3" }, parseTaskConfig({ image: "x", vpu_count: 2 })), 2);
});

test("memory comes from the config, else the ceiling that the job was given; too little names the rule", () => {
  const size = (more: object): number =>
    machineSize({ settings, resources: { ...resources, ...more }, coreMhz: 0 }).memSizeMib;
  assert.equal(size({}), 300);
  assert.equal(size({ memoryMaxMib: 600 }), 600);
  assert.throws(() => size({ memoryMib: 64 }), /config: resources.memory = 64: must be at least 128 MiB/);
});

test("signals by name and number", () => {
  assert.deepEqual(
    ["SIGTERM", "hup", "9", "SIGRTMIN+1", "SIGRTMAX", "SIGNULL"].map(signalNumber),
    [15, 1, 9, 35, 64, 0],
  );
  for (const bad of ["SIGFOO", "0", "65", "", "SIGRTMIN+99"]) assert.throws(() => signalNumber(bad), /unknown signal/);
});

test("the plugin's config: defaults, registries and rules", () => {
  const parsed = parsePluginConfig({
    vmlinux_path: "",
    registry: { "docker.io": { mirrors: ["http://127.0.0.1:5000"], plain_http: true } },
  });
  assert.equal(parsed.vmlinuxPath, undefined);
  assert.equal(parsed.basePath, "/var/lib/litegix-fc-driver");
  assert.deepEqual(parsed.registries["docker.io"], { mirrors: ["http://127.0.0.1:5000"], plainHttp: true });
  assert.throws(() => parsePluginConfig({ vmm: "xen" }), /config: vmm = "xen": must be "auto"/);
  assert.throws(() => parsePluginConfig({ rootfs_base_path: `/${"x".repeat(100)}` }), /at most \d+ bytes/);
  assert.throws(() => parsePluginConfig({ rootfs_base_path: "here" }), /must be an absolute path/);
});

test("no schema has a type below a labelled block that makes Nomad panic", () => {
  const check = (spec: HclSpec, labelled: boolean): void => {
    if (spec.kind === "attr") assert.ok(!(labelled && spec.type === "any"), spec.name);
    if (spec.kind === "object") for (const inner of Object.values(spec.attributes)) check(inner, labelled);
    if (spec.kind === "block_map") check(spec.nested, true);
  };
  check(pluginConfigSchema, false);
  check(taskConfigSchema, false);
});

test("driver state survives, and foreign state is refused cleanly", () => {
  assert.equal(decodeDriverState("t", encodeDriverState("0123abcd")).machineId, "0123abcd");
  fc.assert(
    fc.property(fc.uint8Array(), (bytes) => {
      assert.throws(() => decodeDriverState("t", bytes), /can't recover task t/);
    }),
  );
  for (const machineId of ["../../etc", "", "0123ABCD"]) {
    assert.throws(() => decodeDriverState("t", encodeDriverState(machineId)), /can't recover/);
  }
});
