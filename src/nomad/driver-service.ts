// The driver service: each RPC translated to the driver's verb of the same name. CreateNetwork and DestroyNetwork are left
// unimplemented: Nomad calls them only if a driver's capabilities claim them.
import type { ConnectRouter } from "@connectrpc/connect";
import type { NomadDriver } from "../driver/nomad-driver.ts";
import { Driver, type StartTaskRequest, TaskState } from "../gen/nomad/drivers/driver_pb.js";
import { execStream } from "./exec-stream.ts";
import { type ExecAnswer, encodeAnswer, execMessages } from "./exec-wire.ts";
import type { RawStream } from "./grpc-calls.ts";
import { toSpecMessage } from "./hcl-spec-message.ts";
import { answering, streaming, untilAborted } from "./status.ts";
import {
  fromDuration,
  fromTaskConfig,
  toCapabilities,
  toExitResult,
  toFingerprint,
  toInspection,
  toNetworkOverride,
  toTaskEvent,
  toTaskStats,
} from "./task-messages.ts";

/** The version of our task handles; 0 is reserved for handles from before Nomad 0.9. */
const handleVersion = 1;
const defaultStatsIntervalMs = 1000;
const minStatsIntervalMs = 100;

export function driverRoutes(router: ConnectRouter, driver: NomadDriver): void {
  router.service(Driver, {
    init: () => ({}),
    shutdown: () =>
      answering(async () => {
        await driver.shutdown();
        return {};
      }),
    taskConfigSchema: () => ({ spec: toSpecMessage(driver.taskConfigSchema()) }),
    capabilities: () => toCapabilities(driver.capabilities()),

    async *fingerprint(_request, { signal }) {
      for await (const fingerprint of streaming(signal, () => driver.fingerprint(signal))) {
        yield toFingerprint(fingerprint);
      }
      // If this stream or the next ended, the agent would open a new one at once, again and again.
      await untilAborted(signal);
    },
    async *taskEvents(_request, { signal }) {
      for await (const event of streaming(signal, () => driver.taskEvents(signal))) yield toTaskEvent(event);
      await untilAborted(signal);
    },

    startTask: (request, { signal }) => answering(() => startTask(driver, request, signal)),
    recoverTask: (request, { signal }) =>
      answering(async () => {
        const { handle } = request;
        if (handle?.config === undefined) throw new Error("Nomad sent a task handle without a config");
        const config = fromTaskConfig(handle.config);
        await driver.recoverTask({ config, driverState: handle.driverState, signal });
        return {};
      }),
    waitTask: ({ taskId }, { signal }) =>
      answering(async () => {
        const result = await driver.waitTask({ taskId, signal });
        return { result: toExitResult(result), err: result.error ?? "" };
      }),
    stopTask: (request) =>
      answering(async () => {
        const { taskId, signal: signalName } = request;
        await driver.stopTask({ taskId, timeoutMs: fromDuration(request.timeout), signalName });
        return {};
      }),
    destroyTask: ({ taskId, force }) =>
      answering(async () => {
        await driver.destroyTask({ taskId, force });
        return {};
      }),
    inspectTask: ({ taskId }) => answering(async () => toInspection(await driver.inspectTask({ taskId }))),
    async *taskStats(request, { signal }) {
      const { taskId } = request;
      const asked = fromDuration(request.collectionInterval);
      const intervalMs = asked > 0 ? Math.max(asked, minStatsIntervalMs) : defaultStatsIntervalMs;
      const samples = streaming(signal, () => driver.taskStats({ taskId, intervalMs, signal }));
      for await (const stats of samples) yield toTaskStats(taskId, stats);
    },
    signalTask: ({ taskId, signal: signalName }) =>
      answering(async () => {
        await driver.signalTask({ taskId, signalName });
        return {};
      }),
    execTask: (request, { signal }) =>
      answering(async () => {
        const { taskId, command } = request;
        const timeoutMs = fromDuration(request.timeout);
        const { stdout, stderr, ...result } = await driver.execTask({ taskId, command, timeoutMs, signal });
        return { stdout, stderr, result };
      }),
  });
}

/** The calls that the library does not handle: see exec-wire.ts. */
export function driverStreams(driver: NomadDriver): ReadonlyMap<string, RawStream> {
  const { typeName, method } = Driver;
  return new Map([
    [
      `/${typeName}/${method.execTaskStreaming.name}`,
      async function* execTaskStreaming(chunks, signal) {
        const run = (): AsyncIterable<ExecAnswer> => execStream({ driver, requests: execMessages(chunks), signal });
        for await (const answer of streaming(signal, run)) yield encodeAnswer(answer);
      },
    ],
  ]);
}

async function startTask(
  driver: NomadDriver,
  request: StartTaskRequest,
  signal: AbortSignal,
): Promise<{ handle: object; networkOverride?: object }> {
  if (request.task === undefined) throw new Error("Nomad sent no task");
  const { driverState, networkOverride } = await driver.startTask({ config: fromTaskConfig(request.task), signal });
  return {
    handle: { version: handleVersion, config: request.task, state: TaskState.RUNNING, driverState },
    ...toNetworkOverride(networkOverride),
  };
}
