// `devices` blocks of Nomad's docker driver. In a VM they are the VM's own: a task that is not privileged gets those that it names.
import { posix } from "node:path";
import { ConfigError } from "../../errors.ts";
import { type ConfigMap, optionalBlocks, optionalString, refuseOtherKeys } from "../values.ts";

export interface Device {
  /** In the guest's /dev. */
  readonly path: string;
  /** Where the task finds it. */
  readonly target: string;
}

/** Fails with ConfigError. */
export function devices(config: ConfigMap): Device[] {
  return optionalBlocks(config, "devices").map((block) => {
    refuseOtherKeys(block, "devices", ["host_path", "container_path", "cgroup_permissions"]);
    const given = optionalString(block, "host_path") ?? "";
    const path = posix.normalize(given);
    if (!path.startsWith("/dev/")) {
      throw new ConfigError("devices.host_path", given, "must be a device below /dev, of the VM and not of the host");
    }
    const target = optionalString(block, "container_path") || path;
    if (!target.startsWith("/")) throw new ConfigError("devices.container_path", target, "must be an absolute path");
    const permissions = optionalString(block, "cgroup_permissions") ?? "";
    if (!/^[rwm]*$/.test(permissions)) {
      throw new ConfigError("devices.cgroup_permissions", permissions, 'must be of the letters "r", "w" and "m"');
    }
    return { path, target };
  });
}
