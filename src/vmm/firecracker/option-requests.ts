// Turns a job's VM options into calls. Options for another call's body (machine-config, drives) are merged there.
import { join } from "node:path";
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
  const extra = new Map((config.spec.options.drives ?? []).map((drive) => [drive.path_on_host, drive]));
  return config.drives.map((drive, index): ApiRequest => {
    const asked = extra.get(drive.path);
    return {
      operation: "PUT /drives/{drive_id}",
      body: {
        ...(asked ?? { drive_id: `drive${index}`, ...(limiter === undefined ? {} : { rate_limiter: limiter }) }),
        path_on_host: vmmPath(drive.path),
        // The root is the initramfs; Firecracker would append `root=` for a root device.
        is_root_device: false,
        is_read_only: drive.readOnly,
      },
    };
  });
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
