// A plugin process with a driver that runs nothing. The tests of src/nomad run against it, over its real handshake and
// socket.

import { attr, blockMap, object } from "../../src/driver/config/hcl-spec.ts";
import { NotReadyError, RecoverableError } from "../../src/driver/errors.ts";
import type { NomadDriver, TaskConfig } from "../../src/driver/nomad-driver.ts";
import type { ExecInput } from "../../src/guest/exec/input.ts";
import type { ExecOutput } from "../../src/guest/exec/session.ts";
import { createHclogLogger } from "../../src/nomad/hclog.ts";
import { servePlugin } from "../../src/nomad/serve-plugin.ts";
import { untilAborted } from "../../src/nomad/status.ts";

const logger = createHclogLogger({ module: "fake", write: (line) => void process.stderr.write(line) });
const started = new Map<string, TaskConfig>();

const driver: NomadDriver = {
  info: { name: "fake", version: "1.2.3" },
  configSchema: () => object(attr("path", "any"), blockMap("registry", ["host"], object(attr("mirrors", "any")))),
  taskConfigSchema: () => object(attr("image", "string", { required: true })),
  capabilities: () => ({
    sendSignals: true,
    exec: true,
    fsIsolation: "image",
    networkIsolationModes: ["host"],
    mountConfigs: false,
  }),
  async setConfig({ config, agent }) {
    logger.info("configured", { config, agent });
    if (config instanceof Map && config.has("fail")) throw new Error("bad\n  config");
  },
  async *fingerprint(signal) {
    yield { health: "healthy", description: "Healthy", attributes: { "driver.fake": true, n: 3, f: 1.5, s: "x" } };
    await untilAborted(signal);
  },
  async *taskEvents(signal) {
    yield { taskId: "t", allocId: "a", taskName: "n", at: new Date(1000), message: "hello" };
    await untilAborted(signal);
  },
  async startTask({ config }) {
    if (config.name === "recoverable")
      throw new RecoverableError(new NotReadyError({ reason: "the registry is away" }));
    if (config.name === "broken") throw new Error("it is broken");
    started.set(config.id, config);
    return { driverState: Buffer.from("state") };
  },
  async recoverTask() {},
  async waitTask({ taskId }) {
    if (!started.has(taskId)) throw new Error("task not found for given id");
    return { exitCode: 3, signal: 0, oomKilled: false };
  },
  async stopTask() {},
  async destroyTask() {},
  async inspectTask({ taskId }) {
    const at = new Date(0);
    return {
      id: taskId,
      name: "n",
      state: "running",
      startedAt: at,
      completedAt: undefined,
      result: undefined,
      driverAttributes: {},
    };
  },
  async *taskStats() {
    yield {
      at: new Date(0),
      cpu: { percent: 50, userPercent: 25, systemPercent: 25, totalTicks: 1000 },
      memory: { rssBytes: 1, cacheBytes: 2, usageBytes: 3, maxUsageBytes: 4, kernelUsageBytes: 5, swapBytes: 0 },
      processes: new Map([["vmm-77", { userPercent: 30, systemPercent: 20, rssBytes: 9 }]]),
    };
  },
  async signalTask() {
    throw new Error("no signals here");
  },
  async execTask({ command }) {
    return { stdout: Buffer.from(command.join(" ")), stderr: Buffer.alloc(0), exitCode: 0, signal: 0 };
  },
  execTaskStreaming: ({ command, terminal, input }) => echo(command, terminal, input),
  async shutdown() {},
};

/** Reports its request, echoes input, and exits with 7 at the end of stdin. */
async function* echo(
  command: readonly string[],
  terminal: boolean,
  input: AsyncIterable<ExecInput>,
): AsyncGenerator<ExecOutput> {
  yield { kind: "stdout", data: Buffer.from(`${command.join(" ")} ${terminal}`) };
  for await (const event of input) {
    if (event.kind === "stdin") yield { kind: "stderr", data: event.data };
    if (event.kind === "resize") yield { kind: "stdout", data: Buffer.from(`${event.rows}x${event.columns}`) };
    if (event.kind === "stdin_end") break;
  }
  yield { kind: "exited", exitCode: 7, signal: 0 };
}

await servePlugin({ name: driver.info.name, loadDriver: async () => driver, logger, env: process.env });
