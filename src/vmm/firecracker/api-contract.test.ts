// The contract with Firecracker's API. Its subjects are a fake that validates every request by the published
// description, and the real program if `FIRECRACKER` or PATH has one (nothing here needs KVM).
import assert from "node:assert/strict";
import { once } from "node:events";
import { accessSync, constants } from "node:fs";
import { writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { describe, it } from "node:test";
import { realVersion, type Subject, startFake, startReal, vmConfig } from "../../../test/fakes/contract-subjects.ts";
import { complaint, findOperation, withoutNulls } from "../../../test/fakes/firecracker-description.ts";
import { describedVersion } from "../../gen/firecracker/api.ts";
import { FirecrackerApiError } from "../errors.ts";
import type { VmOptions } from "../vm-options.ts";
import { FirecrackerApi } from "./api-client.ts";
import { bootRequests, startRequest } from "./boot-requests.ts";

/** The tests cancel nothing; each subject has its own deadline. */
const { signal } = new AbortController();

async function requestsOf(subject: Subject): Promise<ReturnType<typeof bootRequests>> {
  const config = await vmConfig(subject.directory);
  return bootRequests({ config, vsockPath: join(subject.directory, "v.sock"), vmmPath: (path) => path });
}

/** The call and the message of a refusal. */
async function refusal(sent: Promise<unknown>, what = ""): Promise<{ call: string; faultMessage: string }> {
  const error = await sent.then(
    () => assert.fail(`it was accepted ${what}`),
    (caught: unknown) => caught,
  );
  assert.ok(error instanceof FirecrackerApiError, String(error));
  assert.ok(error.message.includes(error.call) && error.message.includes(error.faultMessage));
  return error;
}

function contract(start: () => Promise<Subject>): void {
  it("accepts every request of a VM's configuration, and reports the same configuration", async () => {
    await using subject = await start();
    const { lanes } = await requestsOf(subject);
    await subject.api.sendLanes(lanes, { signal });
    const config = await subject.api.send({ operation: "GET /vm/config", body: undefined }, { signal });
    assert.deepEqual(
      config.drives?.map((drive) => drive.drive_id),
      ["drive0", "drive1"],
    );
    assert.equal(config["machine-config"]?.mem_size_mib, 256);
    assert.match(config["boot-source"]?.boot_args ?? "", /^console=ttyS0 .* quiet$/);
  });

  it("accepts every option that a job may set", async () => {
    await using subject = await start();
    const limiter = {
      bandwidth: { size: 1000, refill_time: 100 },
      ops: { size: 10, refill_time: 100, one_time_burst: 5 },
    };
    const config = await vmConfig(subject.directory);
    const extra = join(subject.directory, "extra");
    await writeFile(extra, Buffer.alloc(4096));
    const options: VmOptions = {
      machineConfig: { smt: false, huge_pages: "None", track_dirty_pages: true },
      drives: [
        {
          drive_id: "extra",
          path_on_host: extra,
          is_read_only: true,
          cache_type: "Writeback",
          io_engine: "Sync",
          rate_limiter: limiter,
        },
      ],
      rateLimiter: limiter,
      balloon: { amount_mib: 64, deflate_on_oom: true, stats_polling_interval_s: 1, free_page_reporting: true },
      entropy: { rate_limiter: limiter },
      serial: { rate_limiter: { size: 1000, refill_time: 100 } },
      logger: { level: "Warning", show_level: true },
      metrics: true,
    };
    const drives = [...config.drives, { path: extra, readOnly: true, id: "extra" }];
    const vsockPath = join(subject.directory, "v.sock");
    const optional = { ...config, spec: { ...config.spec, options }, drives };
    const requests = bootRequests({ config: optional, vsockPath, vmmPath: (path) => path });
    await subject.api.sendLanes(requests.lanes, { signal });
    const told = await subject.api.send({ operation: "GET /vm/config", body: undefined }, { signal });
    assert.deepEqual(
      told.drives?.map((drive) => [drive.drive_id, drive.rate_limiter?.ops?.size]),
      [
        ["drive0", 10],
        ["drive1", 10],
        ["extra", 10],
      ],
    );
    assert.equal(told.balloon?.amount_mib, 64);
    assert.equal(told["machine-config"]?.track_dirty_pages, true);
  });

  it("answers by the description", async () => {
    await using subject = await start();
    await subject.api.sendLanes((await requestsOf(subject)).lanes, { signal });
    for (const path of ["/", "/version", "/machine-config", "/vm/config"] as const) {
      const answer = await subject.api.send({ operation: `GET ${path}`, body: undefined }, { signal });
      assert.equal(complaint(findOperation("GET", path)?.validateAnswer, withoutNulls(answer)), undefined, path);
    }
    const { id } = await subject.api.send({ operation: "GET /", body: undefined }, { signal });
    assert.equal(id, "contract");
  });

  it("refuses requests that need a running VM", async () => {
    await using subject = await start();
    const early = await refusal(subject.api.send({ operation: "PATCH /vm", body: { state: "Paused" } }, { signal }));
    assert.deepEqual(
      { call: early.call, faultMessage: early.faultMessage },
      {
        call: "PATCH /vm",
        faultMessage: "The requested operation is not supported before starting the microVM.",
      },
    );
  });

  it("refuses to start without a kernel, a kernel that is not there, a disk that is not there", async () => {
    await using subject = await start();
    const noKernel = await refusal(
      subject.api.send({ operation: "PUT /actions", body: { action_type: "InstanceStart" } }, { signal }),
    );
    assert.match(noKernel.faultMessage, /without kernel configuration/);
    const noFile = await refusal(
      subject.api.send({ operation: "PUT /boot-source", body: { kernel_image_path: "/nonexistent" } }, { signal }),
    );
    assert.match(noFile.faultMessage, /kernel file cannot be opened: No such file/);
    const noDisk = await refusal(
      subject.api.send(
        {
          operation: "PUT /drives/{drive_id}",
          body: { drive_id: "scratch", path_on_host: "/nonexistent", is_root_device: false },
        },
        { signal },
      ),
    );
    assert.equal(noDisk.call, "PUT /drives/scratch");
    assert.match(noDisk.faultMessage, /No such file/);
  });

  it("refuses unknown fields, values outside the schema and wrong combinations", async () => {
    await using subject = await start();
    const bad: Parameters<FirecrackerApi["send"]>[0][] = [
      { operation: "PUT /machine-config", body: { vcpu_count: 33, mem_size_mib: 128 } },
      { operation: "PUT /machine-config", body: { vcpu_count: 3, mem_size_mib: 128, smt: true } },
      { operation: "PUT /machine-config", body: { vcpu_count: 2, mem_size_mib: 129, huge_pages: "2M" } },
      { operation: "PUT /machine-config", body: { vcpu_count: 1, mem_size_mib: 128, surprise: 1 } as never },
      { operation: "PUT /balloon", body: { amount_mib: 100_000, deflate_on_oom: true } },
      { operation: "PUT /mmds/config", body: { network_interfaces: ["eth0"] } },
      { operation: "PUT /mmds/config", body: { network_interfaces: [] } },
      {
        operation: "PUT /drives/{drive_id}",
        body: { drive_id: "a-b", is_root_device: false, path_on_host: "/dev/null" },
      },
      { operation: "PUT /drives/{drive_id}", body: { drive_id: "neither", is_root_device: false } },
      { operation: "PUT /actions", body: { action_type: "Fly" as never } },
    ];
    for (const request of bad) await refusal(subject.api.send(request, { signal }), JSON.stringify(request));
  });

  it("stops at the first refusal and names its call", async () => {
    await using subject = await start();
    const { lanes } = await requestsOf(subject);
    const [machine = [], , others = []] = lanes;
    const broken = [
      { operation: "PUT /drives/{drive_id}", body: { drive_id: "first", is_root_device: false } },
      { operation: "PUT /drives/{drive_id}", body: { drive_id: "second", is_root_device: false } },
    ] as const;
    const { call } = await refusal(subject.api.sendLanes([machine, broken, others], { signal }));
    assert.equal(call, "PUT /drives/first");
  });
}

function whyNoKvm(): string | false {
  try {
    accessSync("/dev/kvm", constants.R_OK | constants.W_OK);
    return false;
  } catch (error) {
    return `no usable /dev/kvm (${(error as NodeJS.ErrnoException).code})`;
  }
}

async function refusesAfterStart(subject: Subject): Promise<void> {
  const requests = await requestsOf(subject);
  await subject.api.sendLanes(requests.lanes, { signal });
  await subject.api.send(startRequest, { signal });
  for (const request of [...requests.lanes.flat(), startRequest]) {
    const { faultMessage } = await refusal(subject.api.send(request, { signal }), JSON.stringify(request));
    assert.match(faultMessage, /not supported after starting the microVM|PCI is not enabled/);
  }
}

describe("contract with the API, on a fake", () => {
  contract(startFake);

  it("a missing answer is reported with the call and the time", async () => {
    await using subject = await startFake();
    const silent = createServer(() => {}).listen(join(subject.directory, "silent.sock"));
    await once(silent, "listening");
    using api = new FirecrackerApi({ socketPath: join(subject.directory, "silent.sock"), timeoutMs: 100 });
    const sent = refusal(api.send({ operation: "GET /version", body: undefined }, { signal }));
    assert.deepEqual([(await sent).call, (await sent).faultMessage], ["GET /version", "no answer within 0.1 s"]);
    silent.close();
  });

  it("refuses requests that need a VM that has not started", async () => {
    await using subject = await startFake();
    await refusesAfterStart(subject);
    assert.equal(subject.fake?.requests.at(-1)?.call, "PUT /actions");
  });
});

const skip = realVersion === undefined ? "no firecracker binary (FIRECRACKER or PATH)" : false;

describe("contract with the API, on the real Firecracker", { skip }, () => {
  contract(startReal);

  it("refuses requests that need a VM that has not started", { skip: whyNoKvm() }, async () => {
    await using subject = await startReal();
    await refusesAfterStart(subject);
  });

  it("has the described version or a later one", async () => {
    await using subject = await startReal();
    const { firecracker_version: version } = await subject.api.send(
      { operation: "GET /version", body: undefined },
      { signal },
    );
    assert.equal(version, realVersion);
    assert.ok(version.localeCompare(describedVersion, "en", { numeric: true }) >= 0, version);
  });
});
