// Measures the project's promises: time to the handshake, time to a workload's first output, memory, size.
// Run by `make bench`, on an idle machine. If LITEGIX_BENCH_AGAINST names another executable, it measures only the starts of
// both, by turns.
import { spawn } from "node:child_process";
import { readFile, stat } from "node:fs/promises";
import { connect } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { createClient } from "@connectrpc/connect";
import { BasePlugin } from "../../src/gen/nomad/base/base_pb.js";
import { GrpcConnection } from "../../src/system/grpc-connection.ts";
import { Agent, driverName } from "../end-to-end/support/agent.ts";
import { startJob } from "../end-to-end/support/allocation.ts";
import { busyboxLayout, driverPath } from "../end-to-end/support/environment.ts";
import { Registry } from "../end-to-end/support/registry.ts";
import { waitFor } from "../end-to-end/support/wait.ts";
import { median } from "./median.ts";

/** As Nomad starts a plugin. */
const pluginEnvironment = {
  NOMAD_PLUGIN_MAGIC_COOKIE: "e4327c2e01eabfd75a8a67adb114fb34a757d57eee7728d857a8cec6e91a7255",
  PLUGIN_MIN_PORT: "10000",
  PLUGIN_MAX_PORT: "25000",
  PLUGIN_PROTOCOL_VERSIONS: "2",
};

interface StartTimes {
  readonly handshake: number;
  readonly answer: number;
}

/** Milliseconds from spawn to the handshake line, and to the answer to the first call, which waits for all code to be loaded. */
async function measureStart(executable: string): Promise<StartTimes> {
  const started = performance.now();
  const child = spawn(executable, [], {
    env: { ...process.env, ...pluginEnvironment },
    stdio: ["ignore", "pipe", "ignore"],
  });
  try {
    const line = await new Promise<string>((resolve, reject) => {
      const deadline = setTimeout(() => reject(new Error("no handshake within 30 s")), 30_000);
      child.once("error", reject);
      child.once("close", (code) => reject(new Error(`the plugin ended with exit code ${code}`)));
      child.stdout.once("data", (chunk: Buffer) => {
        clearTimeout(deadline);
        resolve(chunk.toString());
      });
    });
    const handshake = performance.now() - started;
    const socketPath = /^1\|2\|unix\|([^|]+)\|grpc/.exec(line)?.[1];
    if (socketPath === undefined) throw new Error(`no handshake: ${line}`);
    using connection = new GrpcConnection({ open: async () => connect(socketPath), maxMessageBytes: 1 << 20 });
    await createClient(BasePlugin, connection.transport).pluginInfo({}, { timeoutMs: 30_000 });
    return { handshake, answer: performance.now() - started };
  } finally {
    child.kill("SIGKILL");
  }
}

async function residentMb(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return (Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1]) * 1024) / 1e6;
}

/** From Nomad's event "Task Setup", a few ms before StartTask, to the line's arrival in the log that Nomad shows. */
async function measureFirstOutput(agent: Agent): Promise<number> {
  const allocation = await startJob({
    agent,
    config: 'image = "busybox:latest"\ncommand = "/bin/sh"\nargs = ["-c", "echo first; sleep 2"]',
  });
  const arrivedAtMs = await waitFor({
    what: "the first output",
    timeoutMs: 120_000,
    intervalMs: 10,
    attempt: async () => ((await allocation.log().catch(() => "")).includes("first") ? Date.now() : undefined),
    seen: () => allocation.eventText(),
  });
  const { TaskStates: states } = (await agent.get(`/v1/allocation/${allocation.id}`)) as {
    TaskStates: Record<string, { Events: { Type: string; Time: number }[] }>;
  };
  const setup = Object.values(states)[0]?.Events.find(({ Type }) => Type === "Task Setup");
  if (setup === undefined) throw new Error("no Task Setup event");
  await allocation.waitForEnd();
  return arrivedAtMs - setup.Time / 1e6;
}

const against = process.env["LITEGIX_BENCH_AGAINST"];
const starts = new Map(
  [driverPath, ...(against === undefined ? [] : [against])].map((path) => [path, [] as StartTimes[]]),
);
for (let run = 0; run < 9; run++) for (const [path, times] of starts) times.push(await measureStart(path));
for (const [path, times] of starts) {
  const startMedian = (key: keyof StartTimes): string => median(times.map((time) => time[key])).toFixed(0);
  console.log(
    `handshake:      ${startMedian("handshake")} ms (median of ${times.length}; spawn to handshake line; first call answered: ${startMedian("answer")} ms)` +
      (against === undefined ? "" : `: ${path}`),
  );
}
if (against !== undefined) process.exit();

await using registry = await Registry.start();
await registry.push({ source: `oci:${busyboxLayout}:latest`, name: "library/busybox:latest" });
await using agent = await Agent.start({
  pluginConfig: `registry "docker.io" { mirrors = ["http://${registry.address}"] }`,
});
const { Attributes: attributes } = await agent.node();
const fact = (name: string): string => attributes[`driver.${driverName}.${name}`] ?? "?";
await measureFirstOutput(agent);
const outputs: number[] = [];
for (let run = 0; run < 5; run++) outputs.push(await measureFirstOutput(agent));
console.log(
  `first output:   ${median(outputs).toFixed(0)} ms (median of ${outputs.length}; StartTask to the workload's first line, image cached; ` +
    `${fact("vmm")} ${fact("vmm_version")}, ${fact("acceleration")})`,
);
await delay(10_000);
console.log(
  `driver memory:  ${(await residentMb((await agent.plugin()).pid)).toFixed(1)} MB resident, idle after ${outputs.length + 1} tasks`,
);
console.log(`executable:     ${((await stat(driverPath)).size / 1e6).toFixed(1)} MB`);
