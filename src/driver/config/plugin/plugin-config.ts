// The `config` block of the plugin in the agent's configuration, checked.
import type { RegistryConfigs } from "../../../images/registry/endpoint.ts";
import { maximumBasePathBytes } from "../../../machine/records/files.ts";
import type { VmmChoice } from "../../../vmm/select-vmm.ts";
import { ConfigError } from "../../errors.ts";
import {
  asConfigMap,
  type ConfigMap,
  optionalBoolean,
  optionalString,
  optionalStrings,
  optionalWords,
} from "../values.ts";
import { type JailerSettings, parseJailer } from "./jailer.ts";
import { type PluginNetworkSettings, parsePluginNetwork } from "./network.ts";

export interface PluginSettings {
  readonly vmlinuxPath: string | undefined;
  /** Images, kernels and VMs lie below it. */
  readonly basePath: string;
  readonly vmm: VmmChoice;
  readonly firecrackerPath: string | undefined;
  readonly jailerPath: string | undefined;
  readonly jailer: JailerSettings;
  readonly qemuPath: string | undefined;
  /** What jobs may name on the host (drives, kernels, initrds): these paths and what lies below them. */
  readonly allowedHostPaths: readonly string[];
  readonly network: PluginNetworkSettings;
  readonly registries: RegistryConfigs;
}

const defaultBasePath = "/var/lib/litegix-fc-driver";

/** Fails with ConfigError. */
export function parsePluginConfig(config: unknown): PluginSettings {
  const map = asConfigMap(config);
  return {
    vmlinuxPath: absolutePath(map, "vmlinux_path"),
    basePath: basePath(map),
    vmm: vmmChoice(map),
    firecrackerPath: absolutePath(map, "firecracker_path"),
    jailerPath: absolutePath(map, "jailer_path"),
    jailer: parseJailer(map),
    qemuPath: absolutePath(map, "qemu_path"),
    allowedHostPaths: allowedHostPaths(map),
    network: parsePluginNetwork(map),
    registries: registries(map),
  };
}

/** Where VMs are, whatever is wrong with the rest. Never fails: a base path that is itself refused never had a VM. */
export function basePathOf(config: unknown): string {
  try {
    return basePath(asConfigMap(config));
  } catch {
    return defaultBasePath;
  }
}

/** The empty string counts as unset: agents' configurations are often written by templates. */
function absolutePath(map: ConfigMap, key: string): string | undefined {
  const path = optionalString(map, key);
  if (path === undefined || path === "") return undefined;
  if (!path.startsWith("/")) throw new ConfigError(key, path, "must be an absolute path");
  return path;
}

function allowedHostPaths(map: ConfigMap): string[] {
  const paths = optionalStrings(map, "allowed_host_paths") ?? [];
  const relative = paths.find((path) => !path.startsWith("/"));
  if (relative === undefined) return paths;
  throw new ConfigError("allowed_host_paths", relative, "must be a list of absolute paths");
}

function basePath(map: ConfigMap): string {
  const path = (absolutePath(map, "rootfs_base_path") ?? defaultBasePath).replace(/\/+$/, "");
  if (Buffer.byteLength(path) > maximumBasePathBytes) {
    const rule = `must have at most ${maximumBasePathBytes} bytes (unix socket paths below it end at 107)`;
    throw new ConfigError("rootfs_base_path", path, rule);
  }
  return path;
}

function vmmChoice(map: ConfigMap): VmmChoice {
  const choice = optionalString(map, "vmm") ?? "auto";
  if (choice === "auto" || choice === "firecracker" || choice === "qemu") return choice;
  throw new ConfigError("vmm", choice, 'must be "auto", "firecracker" or "qemu"');
}

function registries(map: ConfigMap): RegistryConfigs {
  const blocks = asConfigMap(map["registry"]);
  return Object.fromEntries(
    Object.entries(blocks).map(([host, block]) => {
      const settings = asConfigMap(block);
      return [
        host,
        {
          mirrors: optionalWords(settings, "mirrors") ?? [],
          plainHttp: optionalBoolean(settings, "plain_http") ?? false,
        },
      ];
    }),
  );
}
