// The built plugin as Nomad's agent uses it: started with the magic cookie, called over its socket.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { connect } from "node:net";
import { createInterface } from "node:readline";
import { type Client, createClient } from "@connectrpc/connect";
import { encode } from "@msgpack/msgpack";
import { BasePlugin } from "../../../src/gen/nomad/base/base_pb.js";
import { Driver, FingerprintResponse_HealthState as Health } from "../../../src/gen/nomad/drivers/driver_pb.js";
import { magicCookie } from "../../../src/nomad/handshake.ts";
import { GrpcConnection } from "../../../src/system/grpc-connection.ts";
import { driverPath } from "../../end-to-end/support/environment.ts";

export interface LogLine {
  readonly "@message": string;
  readonly [field: string]: unknown;
}

export class PluginClient implements AsyncDisposable {
  readonly driver: Client<typeof Driver>;
  readonly logs: LogLine[] = [];
  readonly #child: ChildProcess;
  readonly #connection: GrpcConnection;

  private constructor(child: ChildProcess, connection: GrpcConnection) {
    this.#child = child;
    this.#connection = connection;
    this.driver = createClient(Driver, connection.transport);
  }

  /** Resolves when the driver is healthy. */
  static async start(config: Readonly<Record<string, unknown>>): Promise<PluginClient> {
    const child = spawn(driverPath, [], {
      env: { ...process.env, [magicCookie.name]: magicCookie.value },
      stdio: ["ignore", "pipe", "pipe"],
    });
    const [handshake] = (await once(createInterface(child.stdout), "line")) as [string];
    const socketPath = handshake.split("|")[3] ?? "";
    const connection = new GrpcConnection({ open: async () => connect(socketPath), maxMessageBytes: 1 << 24 });
    const plugin = new PluginClient(child, connection);
    createInterface(child.stderr).on("line", (line) => plugin.logs.push(JSON.parse(line) as LogLine));
    await createClient(BasePlugin, connection.transport).setConfig({
      msgpackConfig: encode(config),
      nomadConfig: { driver: { Topology: { cores: [{ baseSpeed: 2000n }] } } },
    });
    await plugin.#waitUntilHealthy();
    return plugin;
  }

  async #waitUntilHealthy(): Promise<void> {
    let last = "no fingerprint";
    for await (const { health, healthDescription } of this.driver.fingerprint({}, { timeoutMs: 120_000 })) {
      if (health === Health.HEALTHY) return;
      last = healthDescription;
      break;
    }
    throw new Error(`the driver is not healthy: ${last}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#connection[Symbol.dispose]();
    const ended = once(this.#child, "exit");
    this.#child.kill("SIGKILL");
    await ended;
  }
}
