import assert from "node:assert/strict";
import { test } from "node:test";
import type { RateLimiter } from "../../gen/firecracker/api.ts";
import type { VmConfig } from "../vmm.ts";
import { driveRequests, interfaceRequests, mmdsRequests } from "./option-requests.ts";

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
  networkInterfaces: [
    { tap: "lg0", tapMac: "02:00:00:00:00:02", mtu: 1500, guestMac: "02:00:00:00:00:01", netns: undefined },
  ],
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

/** The limiter of a VM's own disk and of a job's drive, if the job asks for `own` on both. */
function limiterFor(own: RateLimiter | undefined, bytesPerSecond?: number, opsPerSecond?: number) {
  const drive = { drive_id: "data", path_on_host: "/d", ...(own === undefined ? {} : { rate_limiter: own }) };
  const { spec } = config;
  const options = { drives: [drive], ...(own === undefined ? {} : { rateLimiter: own }) };
  const requests = driveRequests({
    config: {
      ...config,
      spec: { ...spec, options, ioLimits: { bytesPerSecond, opsPerSecond } },
      drives: [
        { path: "/image", readOnly: true },
        { path: "/d", readOnly: false },
      ],
    },
    vmmPath: (path) => path,
  });
  const limiters = requests.map(({ body }) => (body as { rate_limiter?: RateLimiter }).rate_limiter);
  assert.deepEqual(limiters[0], limiters[1]);
  return limiters[0];
}

test("the host's limits hold for each disk; a job's can only be stricter", () => {
  assert.equal(limiterFor(undefined), undefined);
  assert.deepEqual(limiterFor(limiter), limiter);
  const host = { bandwidth: { size: 5000, refill_time: 1000 }, ops: { size: 10, refill_time: 1000 } };
  assert.deepEqual(limiterFor(undefined, 5000, 10), host);
  // 10000 a second.
  assert.deepEqual(limiterFor(limiter, 5000, 10), host);
  const strict = { bandwidth: { size: 100, refill_time: 1000 } };
  assert.deepEqual(limiterFor(strict, 5000), strict);
  assert.deepEqual(limiterFor(strict, 5000, 10), { ...strict, ops: host.ops });
});

test("a job's slow bucket holds no burst beyond the host's second", () => {
  const slow = { bandwidth: { size: 1_000_000, refill_time: 1_000_000, one_time_burst: 9_000_000 } };
  assert.deepEqual(limiterFor(slow, 5000), {
    bandwidth: { size: 5000, refill_time: 5000, one_time_burst: 5000 },
  });
});
