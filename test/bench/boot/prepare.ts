// Fills a base directory of the driver with an image and a kernel, so that the measurement needs no registry or
// network.
// Usage: node test/bench/boot/prepare.ts DIRECTORY
import { mkdir, rm, symlink } from "node:fs/promises";
import { basename, join } from "node:path";
import { prepareBoot } from "../../../src/boot/prepare-boot.ts";
import { ImageStore } from "../../../src/images/store/image-store.ts";
import { installAsset, readAsset } from "../../../src/system/assets.ts";
import { busyboxLayout, kernelDirectory } from "../../end-to-end/support/environment.ts";
import { Registry } from "../../end-to-end/support/registry.ts";

const [, , base = "/nonexistent"] = process.argv;
await rm(base, { recursive: true, force: true });
await mkdir(join(base, "kernels"), { recursive: true });
await symlink(kernelDirectory, join(base, "kernels", basename(kernelDirectory)));
await using registry = await Registry.start();
await registry.push({ source: `oci:${busyboxLayout}:latest`, name: "library/busybox:1" });
const registries = { "docker.io": { mirrors: [`http://${registry.address}`], plainHttp: false } };
const store = new ImageStore({ directory: join(base, "images"), registries });
await prepareBoot({
  vmlinuxPath: undefined,
  kernelsDirectory: join(base, "kernels"),
  cacheDirectory: join(base, "boot"),
  init: await readAsset("litegix-init"),
  shimPath: await installAsset({ name: "litegix-shim", directory: join(base, "bin") }),
});
await store.ensure({ reference: "busybox:1", forcePull: false, signal: AbortSignal.timeout(60_000) });
