// The `config` block of a task, checked.

import { ConfigError } from "../../errors.ts";
import { asConfigMap, optionalEnvironment, optionalInteger, optionalString, optionalWords } from "../values.ts";
import { type ContainerSettings, parseContainer } from "./container.ts";
import { type CpuSettings, parseCpu } from "./cpu.ts";
import { type ImageOptions, parseImageOptions } from "./image.ts";
import { type NetworkSettings, parseNetwork } from "./network.ts";
import { parseVm, type VmSettings } from "./vm.ts";

export const maximumVcpus = 32;
/** Below it Debian's cloud kernel with our initramfs does not come up. */
export const minimumMemoryMib = 128;
const maximumMemoryMib = 4 * 1024 * 1024;

export interface TaskSettings {
  readonly image: ImageOptions;
  readonly vcpuCount: number | undefined;
  readonly memSizeMib: number | undefined;
  readonly command: string | undefined;
  readonly args: readonly string[] | undefined;
  /** "K=V" each. */
  readonly env: readonly string[];
  readonly entrypoint: readonly string[] | undefined;
  readonly workDir: string | undefined;
  readonly container: ContainerSettings;
  readonly cpu: CpuSettings;
  readonly vm: VmSettings;
  readonly network: NetworkSettings;
}

/** Fails with ConfigError, whose message names the key, the value and the rule. */
export function parseTaskConfig(config: unknown): TaskSettings {
  const map = asConfigMap(config);
  const workDir = optionalString(map, "work_dir");
  if (workDir !== undefined && !workDir.startsWith("/")) {
    throw new ConfigError("work_dir", workDir, "must be an absolute path");
  }
  return {
    image: parseImageOptions(map),
    vcpuCount: vcpuCount(map),
    memSizeMib: optionalInteger(map, "mem_size", { minimum: minimumMemoryMib, maximum: maximumMemoryMib, unit: "MiB" }),
    command: optionalString(map, "command"),
    args: optionalWords(map, "args"),
    env: optionalEnvironment(map, "env") ?? [],
    entrypoint: optionalWords(map, "entrypoint"),
    workDir,
    container: parseContainer(map),
    cpu: parseCpu(map),
    vm: parseVm(map),
    network: parseNetwork(map),
  };
}

/** `vpu_count` is the promised spelling, `vcpu_count` the expected one. */
function vcpuCount(map: ReturnType<typeof asConfigMap>): number | undefined {
  const bounds = { minimum: 1, maximum: maximumVcpus, unit: "CPUs" };
  const promised = optionalInteger(map, "vpu_count", bounds);
  const expected = optionalInteger(map, "vcpu_count", bounds);
  if (promised !== undefined && expected !== undefined && promised !== expected) {
    throw new ConfigError("vcpu_count", expected, `differs from vpu_count = ${promised}; give one of them`);
  }
  return promised ?? expected;
}
