import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { EventEmitter, once } from "node:events";
import { existsSync } from "node:fs";
import { connect as connectHttp2 } from "node:http2";
import { connect as connectSocket } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, describe, test } from "node:test";
import { Code, type ConnectError, createClient, type Transport } from "@connectrpc/connect";
import { encode } from "@msgpack/msgpack";
import fc from "fast-check";
import { GRPCController, GRPCStdio } from "../gen/goplugin/plugin_pb.js";
import { Health } from "../gen/grpc/health_pb.js";
import { BasePlugin } from "../gen/nomad/base/base_pb.js";
import { Driver } from "../gen/nomad/drivers/driver_pb.js";
import { RecoverableErrorSchema } from "../gen/nomad/structs/structs_pb.js";
import { GrpcConnection } from "../system/grpc-connection.ts";
import { decodeDriverConfig } from "./driver-config.ts";
import { handshakeLine, magicCookie } from "./handshake.ts";
import { createHclogLogger } from "./hclog.ts";

class PluginProcess {
  readonly child: ChildProcess;
  readonly logs: string[] = [];
  readonly stdoutLines: string[] = [];
  readonly handshake: Promise<string>;
  readonly #logged = new EventEmitter();

  constructor(env: Record<string, string> = {}, program = "../../test/fakes/fake-plugin.ts") {
    this.child = spawn(process.execPath, [join(import.meta.dirname, program)], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { PATH: process.env["PATH"], [magicCookie.name]: magicCookie.value, ...env },
    });
    const { stdout, stderr } = this.child;
    assert.ok(stdout !== null && stderr !== null);
    createInterface(stderr).on("line", (line) => {
      this.logs.push(line);
      this.#logged.emit("line");
    });
    const lines = createInterface(stdout);
    lines.on("line", (line) => this.stdoutLines.push(line));
    this.handshake = Promise.race([
      once(lines, "line").then(([line]) => String(line)),
      once(this.child, "exit").then(() => ""),
    ]);
  }

  /** The first log line that holds `text`. It comes by a pipe of its own, so it may be later than a call's answer. */
  async log(text: string): Promise<string> {
    const signal = AbortSignal.timeout(30_000);
    for (;;) {
      const line = this.logs.find((log) => log.includes(text));
      if (line !== undefined) {
        return line;
      }
      await once(this.#logged, "line", { signal });
    }
  }

  async socketPath(): Promise<string> {
    return (await this.handshake).split("|")[3] ?? "";
  }
}

describe("the plugin process", () => {
  let plugin: PluginProcess;
  let transport: Transport;
  let connection: GrpcConnection;
  before(async () => {
    plugin = new PluginProcess();
    const path = await plugin.socketPath();
    connection = new GrpcConnection({ open: async () => connectSocket(path), maxMessageBytes: 1 << 24 });
    transport = connection.transport;
  });
  after(() => {
    connection[Symbol.dispose]();
    plugin.child.kill("SIGKILL");
  });

  test("prints one line with the socket, in five fields", async () => {
    assert.match(await plugin.handshake, /^1\|2\|unix\|\/[^|]+\|grpc$/);
  });

  test("answers health for the plugin and for no other service", async () => {
    const health = createClient(Health, transport);
    assert.equal((await health.check({ service: "plugin" })).status, 1);
    await assert.rejects(health.check({ service: "other" }), (error: ConnectError) => error.code === Code.NotFound);
  });

  test("base service: info, schema, config with numbers and topology in the log", async () => {
    const base = createClient(BasePlugin, transport);
    const info = await base.pluginInfo({});
    assert.deepEqual(
      [info.type, info.pluginApiVersions, info.pluginVersion, info.name],
      [2, ["v0.1.0"], "1.2.3", "fake"],
    );
    const { spec } = await base.configSchema({});
    assert.equal(spec?.block.case, "object");
    const msgpackConfig = encode({ path: "/x", n: 5_000_000_000 });
    const cores = [{ baseSpeed: 0n, maxSpeed: 3000n, guessSpeed: 1n }, { baseSpeed: 2000n }];
    await base.setConfig({ msgpackConfig, nomadConfig: { driver: { Topology: { cores } } } });
    assert.deepEqual(JSON.parse(await plugin.log("configured")).agent, { totalMhz: 5000, coreCount: 2 });
    await assert.rejects(
      base.setConfig({ msgpackConfig: encode({ fail: true }) }),
      (error: ConnectError) => error.code === Code.Unknown && error.rawMessage === "bad; config",
    );
    await assert.rejects(base.setConfig({ msgpackConfig: Uint8Array.of(0xc1) }), /config block that can't be read/);
  });

  test("start echoes the whole config in the handle; errors have Nomad's codes and details", async () => {
    const driver = createClient(Driver, transport);
    const task = { id: "a/b/c", name: "ok", msgpackDriverConfig: encode({ image: "x" }), jobId: "j", nodeId: "n" };
    const { handle } = await driver.startTask({ task });
    assert.deepEqual(
      [
        handle?.version,
        handle?.state,
        handle?.config?.jobId,
        handle?.config?.nodeId,
        Buffer.from(handle?.driverState ?? []).toString(),
      ],
      [1, 1, "j", "n", "state"],
    );
    assert.deepEqual((await driver.waitTask({ taskId: "a/b/c" })).result?.exitCode, 3);
    await assert.rejects(driver.startTask({ task: { name: "recoverable" } }), (error: ConnectError) => {
      assert.equal(error.code, Code.FailedPrecondition);
      assert.deepEqual(
        error.findDetails(RecoverableErrorSchema).map((detail) => detail.recoverable),
        [true],
      );
      return true;
    });
    await assert.rejects(
      driver.startTask({ task: { name: "broken" } }),
      (error: ConnectError) => error.code === Code.Unknown && error.rawMessage === "it is broken",
    );
    await assert.rejects(
      driver.signalTask({ taskId: "a/b/c", signal: "SIGHUP" }),
      (error: ConnectError) => error.code === Code.Unknown && error.rawMessage === "no signals here",
    );
  });

  test("fields that Nomad dereferences are always set", async () => {
    const driver = createClient(Driver, transport);
    const inspected = await driver.inspectTask({ taskId: "t" });
    assert.ok(inspected.task?.result && inspected.task.startedAt && inspected.task.completedAt && inspected.driver);
    const executed = await driver.execTask({ taskId: "t", command: ["a", "b"] });
    assert.ok(executed.result);
    assert.equal(Buffer.from(executed.stdout).toString(), "a b");
    assert.ok((await driver.capabilities({})).capabilities);
    for await (const { stats } of driver.taskStats({ taskId: "t" })) {
      assert.ok(stats?.timestamp && stats.aggResourceUsage?.cpu && stats.aggResourceUsage.memory);
      const vmm = stats.resourceUsageByPid["vmm-77"];
      assert.deepEqual([vmm?.cpu?.percent, vmm?.memory?.rss], [50, 9n]);
    }
  });

  test("fingerprint, events and stdio stay open until the host cancels", async () => {
    const driver = createClient(Driver, transport);
    for (const stream of [
      (signal: AbortSignal) => driver.fingerprint({}, { signal }),
      (signal: AbortSignal) => driver.taskEvents({}, { signal }),
      (signal: AbortSignal) => createClient(GRPCStdio, transport).streamStdio({}, { signal }),
    ]) {
      const stop = new AbortController();
      let ended = false;
      const reading = (async () => {
        for await (const message of stream(stop.signal)) void message;
      })().finally(() => {
        ended = true;
      });
      const settled = reading.catch(() => {});
      await createClient(Health, transport).check({});
      assert.equal(ended, false);
      stop.abort();
      await settled;
    }
  });

  test("exec: setup first, heartbeats and empty stdin have no effect, the exit comes last and alone", async () => {
    const driver = createClient(Driver, transport);
    async function* requests() {
      yield { setup: { taskId: "t", command: ["cat"], tty: true } };
      yield {};
      yield { stdin: { data: new Uint8Array() } };
      yield { ttySize: { height: 24, width: 80 } };
      yield { stdin: { data: Buffer.from("in") } };
      yield { stdin: { close: true } };
      await new Promise(() => {});
    }
    const seen: string[] = [];
    for await (const message of driver.execTaskStreaming(requests())) {
      if (message.exited) {
        assert.equal(message.stdout, undefined);
        assert.equal(message.stderr, undefined);
        seen.push(`exit ${message.result?.exitCode}`);
      } else {
        seen.push(Buffer.from((message.stdout ?? message.stderr)?.data ?? []).toString());
      }
    }
    assert.deepEqual(seen, ["cat true", "24x80", "in", "exit 7"]);
    async function* wrong() {
      yield { stdin: { data: Buffer.from("x") } };
    }
    await assert.rejects(driver.execTaskStreaming(wrong())[Symbol.asyncIterator]().next(), /should always be setup/);
  });

  test("an unknown method is UNIMPLEMENTED, not a bare 404", async () => {
    const path = await plugin.socketPath();
    const session = connectHttp2("http://unused", { createConnection: () => connectSocket(path) });
    const stream = session.request({ ":method": "POST", ":path": "/no.Such/Method" });
    const [headers] = (await once(stream, "response")) as [Record<string, unknown>];
    assert.equal(headers["grpc-status"], "12");
    session.destroy();
  });

  test("shutdown is answered, the process ends at once, the socket is gone, stdout had one line", async () => {
    const path = await plugin.socketPath();
    const exit = once(plugin.child, "exit");
    await createClient(GRPCController, transport).shutdown({});
    assert.deepEqual(await exit, [0, null]);
    assert.equal(existsSync(path), false);
    assert.equal(plugin.stdoutLines.length, 1);
  });
});

test("without Nomad's cookie it refuses, with a sentence on stderr and nothing on stdout", async () => {
  const plugin = new PluginProcess({ [magicCookie.name]: "something else" });
  assert.equal(await plugin.handshake, "");
  assert.deepEqual(plugin.stdoutLines, []);
});

test("a host that asks for mutual TLS gets one sentence on stderr, nothing on stdout, and exit code 1", async () => {
  const plugin = new PluginProcess({ PLUGIN_CLIENT_CERT: "-----BEGIN CERTIFICATE-----" }, "../main.ts");
  assert.deepEqual(await once(plugin.child, "close"), [1, null]);
  assert.deepEqual(plugin.stdoutLines, []);
  assert.deepEqual(plugin.logs, [
    "litegix-fc-driver does not speak TLS: start it without PLUGIN_CLIENT_CERT, as Nomad does",
  ]);
});

test("the handshake line has a seventh field only for hosts that ask", () => {
  const line = (multiplexingAsked: boolean): string => handshakeLine({ socketPath: "/s", multiplexingAsked });
  assert.equal(line(false), "1|2|unix|/s|grpc\n");
  assert.equal(line(true), "1|2|unix|/s|grpc||false\n");
});

test("go-plugin's host can parse every log line, whatever is logged", () => {
  fc.assert(
    fc.property(fc.string(), fc.dictionary(fc.string(), fc.anything({ withBigInt: true })), (message, fields) => {
      const lines: string[] = [];
      const logger = createHclogLogger({ module: "m", write: (line) => lines.push(line), now: () => new Date(0) });
      logger.warn(message, fields);
      const [line] = lines;
      assert.equal(lines.length, 1);
      assert.equal(line?.indexOf("\n"), line === undefined ? -1 : line.length - 1);
      const entry = JSON.parse(line ?? "");
      assert.equal(entry["@level"], "warn");
      assert.equal(typeof entry["@message"], "string");
      assert.equal(entry["@timestamp"], "1970-01-01T00:00:00.000000Z");
    }),
  );
});

test("driver config: cty's msgpack in all its number forms; foreign bytes are an error, never a crash", () => {
  const config = decodeDriverConfig(Buffer.from("83a161cf000000012a05f200a162a3302e31a163c0", "hex"));
  assert.deepEqual(
    config,
    new Map<string, unknown>([
      ["a", 5_000_000_000],
      ["b", "0.1"],
      ["c", null],
    ]),
  );
  const names = Buffer.from("82a2313001a95f5f70726f746f5f5f02", "hex");
  assert.deepEqual(
    decodeDriverConfig(names),
    new Map([
      ["10", 1],
      ["__proto__", 2],
    ]),
  );
  assert.throws(() => decodeDriverConfig(Buffer.from("810101", "hex")), /can't be read: .* not a string/);
  assert.equal(decodeDriverConfig(new Uint8Array()), undefined);
  assert.throws(() => decodeDriverConfig(Buffer.from("81a161d40000", "hex")), /can't be read/);
  assert.throws(() => decodeDriverConfig(Buffer.alloc(100_000, 0x91)), /can't be read/);
  assert.deepEqual(decodeDriverConfig(encode({})), new Map());
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      try {
        decodeDriverConfig(bytes);
      } catch (error) {
        assert.match((error as Error).message, /can't be read/);
      }
    }),
  );
});
