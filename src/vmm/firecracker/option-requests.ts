// Turns a job's VM options into calls. Options for another call's body (machine-config, drives) are merged there.
import { join } from "node:path";
import type { RateLimiter, TokenBucket } from "../../gen/firecracker/api.ts";
import type { IoLimits } from "../machine-spec.ts";
import type { VmConfig } from "../vmm.ts";
import type { ApiRequest } from "./api-client.ts";

/** Firecracker writes its metrics into it, in the VM's directory. */
const metricsName = "metrics.jsonl";

/** Before all others, so that Firecracker logs them as the job asks. */
export function loggingRequests(options: { config: VmConfig; vmmPath: (hostPath: string) => string }): ApiRequest[] {
  const { logger, metrics, serial } = options.config.spec.options;
  const requests: ApiRequest[] = [];
  if (logger !== undefined) requests.push({ operation: "PUT /logger", body: logger });
  if (metrics === true) {
    const path = options.vmmPath(join(options.config.directory, metricsName));
    requests.push({ operation: "PUT /metrics", body: { metrics_path: path } });
  }
  if (serial !== undefined) requests.push({ operation: "PUT /serial", body: serial });
  return requests;
}

export function driveRequests(options: { config: VmConfig; vmmPath: (hostPath: string) => string }): ApiRequest[] {
  const { config, vmmPath } = options;
  const limiter = config.spec.options.rateLimiter;
  const extra = new Map((config.spec.options.drives ?? []).map((drive) => [drive.drive_id, drive]));
  return config.drives.map((drive, index): ApiRequest => {
    const asked = drive.id === undefined ? undefined : extra.get(drive.id);
    const limited = withinLimits(asked === undefined ? limiter : asked.rate_limiter, config.spec.ioLimits);
    return {
      operation: "PUT /drives/{drive_id}",
      body: {
        ...(asked ?? { drive_id: `drive${index}` }),
        ...(limited === undefined ? {} : { rate_limiter: limited }),
        path_on_host: vmmPath(drive.path),
        // The root is the initramfs; Firecracker would append `root=` for a root device.
        is_root_device: false,
        is_read_only: drive.readOnly,
      },
    };
  });
}

/** The job's limiter, made as strict as the host's limits. */
function withinLimits(own: RateLimiter | undefined, limits: IoLimits | undefined): RateLimiter | undefined {
  const bandwidth = stricterBucket(own?.bandwidth, limits?.bytesPerSecond);
  const ops = stricterBucket(own?.ops, limits?.opsPerSecond);
  if (bandwidth === undefined && ops === undefined) return undefined;
  return { ...(bandwidth === undefined ? {} : { bandwidth }), ...(ops === undefined ? {} : { ops }) };
}

/** A bucket holds at most one second of the host's limit, so that no burst is beyond it. */
function stricterBucket(own: TokenBucket | undefined, perSecond: number | undefined): TokenBucket | undefined {
  if (perSecond === undefined) return own;
  if (own === undefined || own.size / own.refill_time > perSecond / 1000) return { size: perSecond, refill_time: 1000 };
  const size = Math.min(own.size, perSecond);
  const burst = own.one_time_burst;
  return {
    size,
    refill_time: Math.max(Math.round((own.refill_time / own.size) * size), 1),
    ...(burst === undefined || burst === null ? {} : { one_time_burst: Math.min(burst, perSecond) }),
  };
}

/** Devices that are neither disks nor network cards. After the machine's size is known: a balloon is checked against it. */
export function deviceRequests(config: VmConfig): ApiRequest[] {
  const { balloon, entropy } = config.spec.options;
  const requests: ApiRequest[] = [];
  if (balloon !== undefined) requests.push({ operation: "PUT /balloon", body: balloon });
  if (entropy !== undefined) requests.push({ operation: "PUT /entropy", body: entropy });
  return requests;
}

const interfaceId = (index: number): string => `net${index}`;

export function interfaceRequests(config: VmConfig): ApiRequest[] {
  const { rxRateLimiter, txRateLimiter } = config.spec.options;
  return (config.networkInterfaces ?? []).map(
    ({ tap, guestMac }, index): ApiRequest => ({
      operation: "PUT /network-interfaces/{iface_id}",
      body: {
        iface_id: interfaceId(index),
        host_dev_name: tap,
        guest_mac: guestMac,
        ...(rxRateLimiter === undefined ? {} : { rx_rate_limiter: rxRateLimiter }),
        ...(txRateLimiter === undefined ? {} : { tx_rate_limiter: txRateLimiter }),
      },
    }),
  );
}

/** After the interfaces, which must exist by then. */
export function mmdsRequests(config: VmConfig): ApiRequest[] {
  const { mmds } = config.spec.options;
  if (mmds === undefined) return [];
  const network_interfaces = (config.networkInterfaces ?? []).map((_, index) => interfaceId(index));
  return [
    { operation: "PUT /mmds/config", body: { ...mmds.config, network_interfaces } },
    { operation: "PUT /mmds", body: { ...mmds.contents } },
  ];
}
