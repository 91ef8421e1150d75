import assert from "node:assert/strict";
import { test } from "node:test";
import { Command } from "commander";
import { pluginOptions, toPluginConfig } from "./plugin-options.ts";

test("options have the names, the choices and the defaults of the plugin's config", () => {
  const command = new Command().exitOverride().configureOutput({ writeErr: () => undefined });
  for (const option of pluginOptions()) command.addOption(option);
  command.parse(["--rootfs-base-path", "/x", "--vmm=qemu"], { from: "user" });
  const given = Object.entries(toPluginConfig(command.opts())).filter(([, value]) => value !== undefined);
  assert.deepEqual(Object.fromEntries(given), { rootfs_base_path: "/x", vmm: "qemu" });
  assert.throws(() => command.parse(["--vmm", "xen"], { from: "user" }), /Allowed choices are auto, firecracker, qemu/);
  assert.match(command.helpInformation(), /--qemu-path <file> [\s\S]*on\s+PATH/);
});

test("a command may take some of them", () => {
  assert.deepEqual(
    pluginOptions("rootfs_base_path").map((option) => option.flags),
    ["--rootfs-base-path <directory>"],
  );
});
