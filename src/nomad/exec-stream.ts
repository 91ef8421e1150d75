// ExecTaskStreaming: one bidirectional call a session. The host never half-closes. It sends heartbeats (empty messages)
// and empty stdin, both without effect. The exit is a message of its own, without stdout and stderr: API clients test
// those first and would lose it. The agent notices that its client left only when it has something to pass on, so a
// silent session sends empty messages, which clients ignore.
import type { NomadDriver } from "../driver/nomad-driver.ts";
import type { ExecInput } from "../guest/exec/input.ts";
import { within } from "../system/wait.ts";
import type { ExecAnswer, ExecMessage } from "./exec-wire.ts";

const heartbeatMs = 3_000;

export async function* execStream(options: {
  driver: NomadDriver;
  requests: AsyncIterable<ExecMessage>;
  signal: AbortSignal;
}): AsyncGenerator<ExecAnswer, void, undefined> {
  const requests = options.requests[Symbol.asyncIterator]();
  const first = await requests.next();
  if (first.done === true || first.value.kind !== "setup") throw new Error("first message should always be setup");
  const { taskId, command, terminal } = first.value;
  const session = options.driver.execTaskStreaming({
    taskId,
    command,
    terminal,
    input: inputs(requests),
    signal: options.signal,
  });
  for await (const output of withPauses(session, heartbeatMs)) {
    switch (output.kind) {
      case "pause":
        yield {};
        break;
      case "stdout":
        yield { stdout: { data: output.data } };
        break;
      case "stderr":
        yield { stderr: { data: output.data } };
        break;
      case "exited":
        yield { exited: true, result: { exitCode: output.exitCode, signal: output.signal } };
        return;
    }
  }
}

/** The items, and a pause each time that none came for `pauseMs`. */
async function* withPauses<T>(
  source: AsyncIterable<T>,
  pauseMs: number,
): AsyncGenerator<T | { readonly kind: "pause" }, void, undefined> {
  const iterator = source[Symbol.asyncIterator]();
  const pause = { kind: "pause" } as const;
  try {
    for (let next = iterator.next(); ; ) {
      if (!(await within(next, pauseMs))) {
        yield pause;
        continue;
      }
      const item = await next;
      if (item.done === true) return;
      yield item.value;
      next = iterator.next();
    }
  } finally {
    await iterator.return?.();
  }
}

async function* inputs(requests: AsyncIterator<ExecMessage>): AsyncGenerator<ExecInput, void, undefined> {
  for (let next = await requests.next(); next.done !== true; next = await requests.next()) {
    if (next.value.kind !== "setup") yield next.value;
  }
}
