// A Firecracker that boots nothing: its API socket, its validation of each request (path, method, schema, ids, order)
// and the shape of its answers, as in the real one (src/firecracker/src/api_server and src/vmm/src/rpc_interface.rs of
// Firecracker). The contract tests run against both.
import { existsSync } from "node:fs";
import { createServer, type IncomingMessage, type Server } from "node:http";
import { text } from "node:stream/consumers";
import { describedVersion } from "../../src/gen/firecracker/api.ts";
import { complaint, findOperation } from "./firecracker-description.ts";

type Body = Readonly<Record<string, unknown>>;

export interface SeenRequest {
  /** "PUT /drives/drive0" */
  readonly call: string;
  readonly body: Body | undefined;
}

class Fault extends Error {}

const preBootOnly = new Set([
  "PUT /balloon",
  "PUT /boot-source",
  "PUT /cpu-config",
  "PUT /entropy",
  "PUT /hotplug/memory",
  "PUT /logger",
  "PUT /machine-config",
  "PATCH /machine-config",
  "PUT /metrics",
  "PUT /mmds/config",
  "PUT /serial",
  "PUT /snapshot/load",
  "PUT /vsock",
]);
/** After the start these hot-plug a device, which needs PCI. */
const hotPlugs = new Set(["PUT /drives/{drive_id}", "PUT /network-interfaces/{iface_id}", "PUT /pmem/{id}"]);
const postBootOnly = new Set([
  "PATCH /balloon",
  "GET /balloon/statistics",
  "PATCH /balloon/statistics",
  "PATCH /balloon/hinting/start",
  "PATCH /balloon/hinting/stop",
  "GET /balloon/hinting/status",
  "PATCH /drives/{drive_id}",
  "GET /hotplug/memory",
  "PATCH /hotplug/memory",
  "PATCH /network-interfaces/{iface_id}",
  "PATCH /pmem/{id}",
  "PUT /snapshot/create",
  "PATCH /vm",
]);

export class FakeFirecracker implements AsyncDisposable {
  readonly requests: SeenRequest[] = [];
  readonly #server: Server;
  readonly #id: string;
  readonly #drives = new Map<string, Body>();
  readonly #interfaces = new Map<string, Body>();
  #machine: Body = { vcpu_count: 1, mem_size_mib: 128, smt: false, track_dirty_pages: false, huge_pages: "None" };
  #bootSource: Body | undefined;
  #balloon: Body | undefined;
  #state: "Not started" | "Running" | "Paused" = "Not started";

  private constructor(id: string) {
    this.#id = id;
    this.#server = createServer((request, response) => {
      this.#answer(request).then(
        (answer) => {
          response.statusCode = answer === undefined ? 204 : 200;
          response.end(answer === undefined ? undefined : JSON.stringify(answer));
        },
        (error: unknown) => {
          response.statusCode = 400;
          response.end(JSON.stringify({ fault_message: (error as Error).message }));
        },
      );
    });
  }

  static async start(options: { socketPath: string; id: string }): Promise<FakeFirecracker> {
    const fake = new FakeFirecracker(options.id);
    await new Promise<void>((resolve, reject) => {
      fake.#server.once("error", reject);
      fake.#server.listen(options.socketPath, resolve);
    });
    return fake;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #answer(request: IncomingMessage): Promise<unknown> {
    const content = await text(request);
    const { method = "", url = "" } = request;
    const operation = findOperation(method, url);
    if (operation === undefined) throw new Fault(`Invalid request method and/or path: ${method} ${url.slice(1)}.`);
    if (content !== "" && request.headers["content-length"] === undefined) throw new Fault("no Content-Length");
    const body = content === "" ? undefined : (JSON.parse(content) as Body);
    const wrong = complaint(operation.validateBody, body);
    if (wrong !== undefined) throw new Fault(`An error occurred when deserializing the json body: ${wrong}.`);
    for (const [name, value] of Object.entries(operation.parameters)) {
      if (!/^\w+$/.test(value)) throw new Fault("API Resource IDs can only contain alphanumeric characters and '_'.");
      if (body?.[name] !== value) throw new Fault("The id from the path does not match the id from the body!");
    }
    this.#checkOrder(operation.name, body);
    this.requests.push({ call: `${method} ${url}`, body });
    return this.#perform(operation.name, body ?? {});
  }

  #checkOrder(operation: string, body: Body | undefined): void {
    const action = operation === "PUT /actions" ? body?.["action_type"] : undefined;
    const started = this.#state !== "Not started";
    const pre = preBootOnly.has(operation) || action === "InstanceStart";
    const post = postBootOnly.has(operation) || (action !== undefined && action !== "InstanceStart");
    if (started && pre) throw new Fault("The requested operation is not supported after starting the microVM.");
    if (!started && post) throw new Fault("The requested operation is not supported before starting the microVM.");
    if (started && hotPlugs.has(operation)) throw new Fault("PCI is not enabled");
  }

  #perform(operation: string, body: Body): unknown {
    switch (operation) {
      case "GET /":
        return { id: this.#id, state: this.#state, vmm_version: describedVersion, app_name: "Firecracker" };
      case "GET /version":
        return { firecracker_version: describedVersion };
      case "GET /machine-config":
        return this.#machine;
      case "GET /vm/config":
        return this.#configuration();
      case "GET /balloon":
        if (this.#balloon === undefined) throw new Fault("Balloon config error: No balloon device found.");
        return this.#balloon;
      case "PUT /machine-config":
        return this.#setMachine(body);
      case "PUT /boot-source":
        needFile(body["kernel_image_path"], "Boot source error: The kernel file cannot be opened");
        needFile(body["initrd_path"], "Boot source error: The initrd file cannot be opened");
        this.#bootSource = body;
        return undefined;
      case "PUT /drives/{drive_id}":
        return this.#setDrive(body);
      case "PUT /network-interfaces/{iface_id}":
        this.#interfaces.set(String(body["iface_id"]), body);
        return undefined;
      case "PUT /mmds/config":
        return this.#setMmds(body);
      case "PUT /balloon":
        if (Number(body["amount_mib"]) > Number(this.#machine["mem_size_mib"])) {
          throw new Fault("Balloon config error: Amount of pages requested cannot be greater than the guest memory");
        }
        this.#balloon = body;
        return undefined;
      case "PUT /vsock":
        if (Number(body["guest_cid"]) < 3) throw new Fault("Vsock config error: Invalid guest CID");
        return undefined;
      case "PUT /actions":
        return this.#act(String(body["action_type"]));
      case "PATCH /vm":
        this.#state = body["state"] === "Paused" ? "Paused" : "Running";
        return undefined;
      default:
        return undefined;
    }
  }

  #setMachine(body: Body): undefined {
    const machine: Body = { ...this.#machine, ...body };
    const vcpus = Number(machine["vcpu_count"]);
    if (machine["smt"] === true && vcpus > 1 && vcpus % 2 === 1) {
      throw new Fault("Machine config error: The number of vCPUs must be 1 or an even number if SMT is enabled.");
    }
    const memory = Number(machine["mem_size_mib"]);
    if (memory === 0 || (machine["huge_pages"] === "2M" && memory % 2 === 1)) {
      throw new Fault("Machine config error: The memory size (MiB) is either 0, or not a multiple of the page size.");
    }
    this.#machine = machine;
  }

  #setDrive(body: Body): undefined {
    if ((body["path_on_host"] === undefined) === (body["socket"] === undefined)) {
      throw new Fault("Drive config error: Unable to create the virtio block device: Invalid configuration");
    }
    needFile(body["path_on_host"], "Drive config error: Unable to create the virtio block device");
    const others = [...this.#drives.values()].filter((drive) => drive["drive_id"] !== body["drive_id"]);
    if (body["is_root_device"] === true && others.some((drive) => drive["is_root_device"] === true)) {
      throw new Fault("Drive config error: A root block device already exists!");
    }
    this.#drives.set(String(body["drive_id"]), body);
  }

  #setMmds(body: Body): undefined {
    const ids = body["network_interfaces"] as readonly string[];
    if (ids.length === 0) throw new Fault("MMDS config error: The list of network interface IDs is empty.");
    if (ids.some((id) => !this.#interfaces.has(id))) {
      throw new Fault("MMDS config error: an ID does not correspond to any existing network interface.");
    }
  }

  #act(action: string): undefined {
    if (action !== "InstanceStart") return;
    if (this.#bootSource === undefined) {
      throw new Fault("Start microvm error: Cannot start microvm without kernel configuration.");
    }
    this.#state = "Running";
  }

  #configuration(): unknown {
    return {
      "boot-source": this.#bootSource ?? { kernel_image_path: "" },
      "machine-config": this.#machine,
      "network-interfaces": [...this.#interfaces.values()],
      drives: [...this.#drives.values()],
      balloon: this.#balloon ?? null,
    };
  }
}

function needFile(path: unknown, fault: string): void {
  if (typeof path === "string" && !existsSync(path)) throw new Fault(`${fault}: No such file or directory`);
}
