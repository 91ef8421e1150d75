import assert from "node:assert/strict";
import { test } from "node:test";
import type { VmConfig } from "../vmm.ts";
import { interfaceRequests, mmdsRequests } from "./option-requests.ts";

const limiter = { bandwidth: { size: 1000, refill_time: 100 } };
const config: VmConfig = {
  id: "a",
  directory: "/vm",
  spec: {
    vcpuCount: 1,
    memSizeMib: 256,
    vmlinuxPath: "/k",
    initramfsPath: "/i",
    kernelArguments: [],
    options: { rxRateLimiter: limiter, mmds: { config: { version: "V2" }, contents: { a: 1 } } },
  },
  vsock: true,
  drives: [],
  networkInterfaces: [{ tap: "lg0", guestMac: "02:00:00:00:00:01", netns: undefined }],
};

test("a job's limiters and metadata service reach the network interface", () => {
  assert.deepEqual(
    interfaceRequests(config).map(({ body }) => body),
    [{ iface_id: "net0", host_dev_name: "lg0", guest_mac: "02:00:00:00:00:01", rx_rate_limiter: limiter }],
  );
  assert.deepEqual(
    mmdsRequests(config).map(({ body }) => body),
    [{ version: "V2", network_interfaces: ["net0"] }, { a: 1 }],
  );
});
