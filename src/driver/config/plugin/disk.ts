// The `disk` block of the plugin's config: the size of tasks' writable disks, and VMs' part of the host's disk.
import type { IoLimits } from "../../../vmm/machine-spec.ts";
import { ConfigError } from "../../errors.ts";
import { key, section } from "../table.ts";
import { integer } from "../values.ts";

/** The guest's ext4 needs some of it. */
export const minDiskMib = 16;
const maxDiskMib = 64 * 1024 * 1024;

const size = integer({ min: minDiskMib, max: maxDiskMib, unit: "MiB" });

export const diskBlock = section("disk", {
  doc: "The writable disks of tasks, the space below `rootfs_base_path`, and the speed of VMs' disks.",
  rows: {
    sizeMib: key("size", {
      reader: size,
      default: 1024,
      doc: "The size of a task's writable disk if its job has no `storage_opt`. Nomad does not tell a driver the job's `ephemeral_disk`.",
    }),
    maxSizeMib: key("max_size", {
      reader: size,
      default: 8192,
      doc: "The largest disk that a job may ask for with `storage_opt`.",
    }),
    minFreeMib: key("min_free", {
      reader: integer({ min: 0, max: maxDiskMib, unit: "MiB" }),
      default: 512,
      doc: "The space that stays free for the host: a task that would take it does not start, and an image that would is not pulled.",
    }),
    bandwidthMib: key("bandwidth", {
      reader: integer({ min: 0, max: 1 << 20, unit: "MiB a second (0: no limit)" }),
      default: 512,
      doc: "The data that a VM reads and writes on each of its disks. A job's own `rate_limiter` can only be stricter.",
    }),
    ops: key("ops", {
      reader: integer({ min: 0, max: 100_000_000, unit: "operations a second (0: no limit)" }),
      default: 20_000,
      doc: "The reads and writes of a VM on each of its disks, in the same way.",
    }),
  },
  convert: ({ bandwidthMib, ops, ...settings }, path) => {
    const { sizeMib, maxSizeMib } = settings;
    const ioLimits: IoLimits = {
      bytesPerSecond: bandwidthMib === 0 ? undefined : bandwidthMib * 1024 * 1024,
      opsPerSecond: ops === 0 ? undefined : ops,
    };
    if (sizeMib <= maxSizeMib) return { ...settings, ioLimits };
    throw new ConfigError(`${path}.size`, sizeMib, `is more than max_size = ${maxSizeMib}`);
  },
});
