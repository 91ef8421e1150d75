// A job's wishes for its VM beyond size and image, in the words and the types of Firecracker's API.
import type {
  Drive as ApiDrive,
  Balloon,
  EntropyDevice,
  Logger,
  MachineConfiguration,
  MmdsConfig,
  RateLimiter,
  SerialDevice,
} from "../gen/firecracker/api.ts";

/** A block device beside the VM's own two. */
export interface ExtraDrive
  extends Pick<ApiDrive, "drive_id" | "is_read_only" | "cache_type" | "io_engine" | "rate_limiter"> {
  readonly path_on_host: string;
}

export interface VmOptions {
  readonly machineConfig?: Pick<MachineConfiguration, "smt" | "cpu_template" | "huge_pages" | "track_dirty_pages">;
  /** In the order in which the guest finds them, after its own: vdc, vdd, ... */
  readonly drives?: readonly ExtraDrive[];
  /** For each of the VM's own two disks. */
  readonly rateLimiter?: RateLimiter;
  /** For each network interface. */
  readonly rxRateLimiter?: RateLimiter;
  readonly txRateLimiter?: RateLimiter;
  readonly balloon?: Balloon;
  readonly entropy?: EntropyDevice;
  readonly mmds?: { readonly config: Omit<MmdsConfig, "network_interfaces">; readonly contents: object };
  /** Without a path: the console goes where the VMM's own output goes. */
  readonly serial?: Pick<SerialDevice, "rate_limiter">;
  readonly logger?: Omit<Logger, "log_path">;
  /** Into the VM's own directory. */
  readonly metrics?: boolean;
}
