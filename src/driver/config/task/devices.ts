// `devices` blocks of Nomad's docker driver. They are the VM's own: a task that is not privileged gets those that it names.
import { posix } from "node:path";
import { ConfigError } from "../../errors.ts";
import { blocks, key } from "../table.ts";
import { refine, string } from "../values.ts";

export interface Device {
  /** In the guest's /dev. */
  readonly path: string;
  /** The task's name for it. */
  readonly target: string;
}

const devicePath = refine(string, (given, name) => {
  const path = posix.normalize(given);
  if (path.startsWith("/dev/")) return path;
  throw new ConfigError(name, given, "must be a device below /dev, of the VM and not of the host");
});

const target = refine(string, (path, name) => {
  if (!path.startsWith("/")) throw new ConfigError(name, path, "must be an absolute path");
  return path;
});

const permissions = refine(string, (letters, name) => {
  if (!/^[rwm]*$/.test(letters)) throw new ConfigError(name, letters, 'must be of the letters "r", "w" and "m"');
});

export const devicesBlock = blocks("devices", {
  free: true,
  doc: "Devices of the guest's kernel that the task gets. Docker's driver takes devices of the host here. A VM has its own; `drive` gives it a disk of the host.",
  rows: {
    path: key("host_path", {
      reader: devicePath,
      required: "/dev/fuse",
      doc: "The device's path in the VM, below /dev.",
    }),
    target: key("container_path", {
      reader: target,
      emptyIsAbsent: true,
      absent: "`host_path`",
      doc: "The device's path for the task.",
    }),
    permissions: key("cgroup_permissions", {
      reader: permissions,
      absent: "none",
      doc: 'Letters out of "rwm". Accepted for docker\'s sake; it changes nothing.',
    }),
  },
  convert: ({ path, target = path }): Device => ({ path, target }),
});
