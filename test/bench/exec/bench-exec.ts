// Exec and logs against two yardsticks of the same run: Nomad's raw_exec on the host, and a bare copy over vsock
// between the same host and the same guest. If the guest is emulated, only the ratios mean something. Run by `make
// bench-exec`, on an idle machine. LITEGIX_BENCH_MB: megabytes a measurement (default 128). LITEGIX_BENCH_VCPUS: vCPUs
// of each guest (default 1, so that a writer and the carriers of its bytes take turns). LITEGIX_BENCH_PARTS: some of
// latency, output, input and logs, with commas between (default all).
import { randomBytes } from "node:crypto";
import { readFile, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Agent, driverName } from "../../end-to-end/support/agent.ts";
import { type Allocation, runService, startJob } from "../../end-to-end/support/allocation.ts";
import { execCopy } from "../../end-to-end/support/exec-copy.ts";
import { ImageBuilder } from "../../end-to-end/support/image-builder.ts";
import { machineOf } from "../../end-to-end/support/machines.ts";
import { Registry } from "../../end-to-end/support/registry.ts";
import { median } from "../median.ts";
import { type BareCopyOptions, bareIn, bareOut } from "./bare-copy.ts";
import { cliLatency, driverTimes, endpointLatency } from "./exec-latency.ts";
import { execIn, execOut, type Side } from "./exec-streams.ts";

const number = (name: string, otherwise: number): number => Number(process.env[name] ?? otherwise);
const bytes = number("LITEGIX_BENCH_MB", 128) * 1_000_000;
const rounds = number("LITEGIX_BENCH_ROUNDS", 3);
const execs = number("LITEGIX_BENCH_EXECS", 21);
/**
 * Measured once each, beside the ratios: an exec session's input and output at once, and a task's log. 0: not at all.
 */
const wholeBytes = number("LITEGIX_BENCH_WHOLE_MB", 0) * 1_000_000;
const logBytes = number("LITEGIX_BENCH_LOG_MB", 0) * 1_000_000;
const vcpus = number("LITEGIX_BENCH_VCPUS", 1);
const parts = process.env["LITEGIX_BENCH_PARTS"]?.split(",");
const wanted = (part: "latency" | "output" | "input" | "logs"): boolean => parts?.includes(part) ?? true;
const hostProgram = process.env["LITEGIX_BENCH_COPY"] ?? "";
const maxLogMs = 1_200_000;
const guestProgram = "/bench/bench-copy";
const sleeper = ["-c", "trap 'exit 0' TERM; while :; do sleep 3600 & wait; done"];

const quoted = (words: readonly string[]): string => JSON.stringify(words);
const rate = (milliseconds: number, count = bytes): number => count / 1000 / milliseconds;

/** Runs each measurement once a round, side by side, so that other load on the machine affects all of them. */
async function medians<Name extends string>(
  measurements: Record<Name, () => Promise<number>>,
  count: number,
): Promise<Record<Name, number>> {
  const names = Object.keys(measurements) as Name[];
  const seen = new Map<Name, number[]>(names.map((name) => [name, []]));
  for (let round = 0; round < count; round++) {
    for (const name of names) seen.get(name)?.push(await measurements[name]());
  }
  return Object.fromEntries(names.map((name) => [name, median(seen.get(name) ?? [])])) as Record<Name, number>;
}

function printRates(what: string, times: { ours: number; raw: number; bare: number }): void {
  const [ours, raw, bare] = [rate(times.ours), rate(times.raw), rate(times.bare)];
  console.log(
    `${what.padEnd(16)}${ours.toFixed(1)} MB/s; raw_exec ${raw.toFixed(1)}, bare vsock copy ${bare.toFixed(1)}: ` +
      `${(ours / Math.min(raw, bare)).toFixed(2)} of the smaller (wanted: 0.80)`,
  );
}

/** Milliseconds in which a guest program writes the bytes to a pipe, whose only reader counts or discards them. */
async function pipeTime(guest: Allocation, end: "count" | "discard"): Promise<number> {
  const line = `${guestProgram} send ${bytes} | ${guestProgram} ${end} wide`;
  const { stderr } = await guest.exec(["/bin/sh", "-c", line]);
  return Number(/(\d+) us/.exec(stderr)?.[1]) / 1000;
}

/** Waits by long polls, so that the agent, which carries the timed bytes, answers only at a change. */
async function waitForEndAtRest({ agent, id }: Allocation): Promise<void> {
  const deadline = performance.now() + maxLogMs;
  for (let index = "0"; performance.now() < deadline; ) {
    const response = await fetch(`${agent.address}/v1/allocation/${id}?index=${index}&wait=60s`, {
      signal: AbortSignal.timeout(90_000),
    });
    if (!response.ok) throw new Error(`the allocation ${id}: ${response.status} ${await response.text()}`);
    const { ClientStatus: status } = (await response.json()) as { ClientStatus: string };
    if (status === "complete") return;
    if (status !== "pending" && status !== "running") throw new Error(`the allocation ${id} is ${status}`);
    index = response.headers.get("x-nomad-index") ?? "0";
  }
  throw new Error(`the allocation ${id} has not ended after ${maxLogMs / 1000} s`);
}

/** Milliseconds in which a task writes the bytes to its standard output, by the task's own clock. */
async function logTime(options: { agent: Agent; driver: string; config: string; memoryMib?: number }): Promise<number> {
  const allocation = await startJob(options);
  await waitForEndAtRest(allocation);
  const match = await allocation.waitForLog(/(\d+) us\n/, { stream: "stderr" });
  await allocation.agent.nomad(["job", "stop", "-purge", "-detach", allocation.job]);
  return Number(match[1]) / 1000;
}

/** As much for each task: the VM may have no more than it reserved. */
const memoryMib = 256;

const oursConfig = (args: readonly string[]): string =>
  `image = "bench:latest"\ncommand = "${guestProgram}"\nargs = ${quoted(args)}\nmem_size = ${memoryMib}\nvpu_count = ${vcpus}`;
const rawConfig = (args: readonly string[]): string => `command = "${hostProgram}"\nargs = ${quoted(args)}`;

async function printLatency(agent: Agent, guest: Allocation, raw: Allocation): Promise<void> {
  const latency = await medians(
    {
      ours: () => cliLatency(guest),
      raw: () => cliLatency(raw),
      endpoint: () => endpointLatency(guest),
      rawEndpoint: () => endpointLatency(raw),
    },
    execs,
  );
  const { dial, start, guest: inGuest, run } = await driverTimes(agent);
  const ms = (value: number): string => `${value.toFixed(1)} ms`;
  console.log(
    `exec true       ${ms(latency.ours)}; raw_exec ${ms(latency.raw)}: ${(latency.ours / latency.raw).toFixed(2)} (wanted: at most 1.30)`,
  );
  console.log(
    `  of it         CLI ${ms(latency.ours - latency.endpoint)}, agent and driver ${ms(latency.endpoint - dial - start - run)}, ` +
      `connection ${ms(dial)}, vsock ${ms(start - inGuest)}, fork in the guest ${ms(inGuest)}, program to its end ${ms(run)}`,
  );
  console.log(
    `  raw_exec      CLI ${ms(latency.raw - latency.rawEndpoint)}, agent, driver and program ${ms(latency.rawEndpoint)}`,
  );
}

async function printInput(sides: Record<"ours" | "raw", Side>, bare: BareCopyOptions): Promise<void> {
  const input = join(sides.ours.allocation.agent.directory, "input");
  await writeFile(input, "");
  await truncate(input, bytes);
  const times = await medians(
    {
      ours: () => execIn(sides.ours, input, bytes),
      raw: () => execIn(sides.raw, input, bytes),
      bare: () => bareIn(bare),
    },
    rounds,
  );
  await rm(input);
  printRates("exec input", times);
}

async function printLogs(agent: Agent, guest: Allocation, bare: BareCopyOptions): Promise<void> {
  const send = ["send", `${bytes}`];
  const logs = await medians(
    {
      ours: () => logTime({ agent, driver: driverName, config: oursConfig(send), memoryMib }),
      raw: () => logTime({ agent, driver: "raw_exec", config: rawConfig(send) }),
      bare: () => bareOut(bare),
      pipe: () => pipeTime(guest, "count"),
      writes: () => pipeTime(guest, "discard"),
    },
    rounds,
  );
  printRates("logs", logs);
  const { pipe, writes, raw, bare: alone } = logs;
  console.log(
    `  of it         a pipe in the guest by itself ${rate(pipe).toFixed(1)} MB/s, its writes alone ${rate(writes).toFixed(1)}. One vCPU that ` +
      `does each after the other has ${rate(pipe + alone).toFixed(1)} for the pipe and the bare copy, and ` +
      `${rate(writes + alone).toFixed(1)} (${(Math.max(raw, alone) / (writes + alone)).toFixed(2)}) if reading the pipe cost nothing`,
  );
}

async function printWhole(agent: Agent, guest: Allocation): Promise<void> {
  if (wholeBytes > 0) {
    const file = join(agent.directory, "whole");
    await writeFile(file, randomBytes(wholeBytes));
    const started = performance.now();
    const { sent, received } = await execCopy({ allocation: guest, file });
    await rm(file);
    if (sent !== received) throw new Error(`exec: sent ${sent}, received ${received}`);
    const took = rate(performance.now() - started, wholeBytes);
    console.log(
      `exec both ways  ${wholeBytes / 1e6} MB in and out through cat, sha256 the same: ${took.toFixed(1)} MB/s`,
    );
  }
  if (logBytes > 0) {
    const took = await logTime({ agent, driver: driverName, config: oursConfig(["send", `${logBytes}`]), memoryMib });
    console.log(`log             ${logBytes / 1e6} MB: ${rate(took, logBytes).toFixed(1)} MB/s`);
  }
}

async function run(): Promise<void> {
  await using registry = await Registry.start();
  await using images = await ImageBuilder.create();
  const source = await images.create("bench");
  await images.addLayer("bench", { fill: `cp ${hostProgram} bench-copy`, at: "/bench" });
  await registry.push({ source, name: "library/bench:latest" });
  await using agent = await Agent.start({
    pluginConfig: `registry "docker.io" { mirrors = ["http://${registry.address}"] }`,
    rawExec: true,
  });
  const { Attributes: attributes } = await agent.node();
  const fact = (name: string): string => attributes[`driver.${driverName}.${name}`] ?? "?";
  console.log(
    `${fact("vmm")} ${fact("vmm_version")}, ${fact("acceleration")}; guests of ${vcpus} vCPUs; ${bytes / 1e6} MB, median of ${rounds}; ${execs} execs`,
  );
  const raw = await runService({ agent, driver: "raw_exec", config: `command = "/bin/sh"\nargs = ${quoted(sleeper)}` });
  const guest = await runService({ agent, config: oursConfig([]), memoryMib });
  await guest.waitForLog(/listening/);
  const { directory } = await machineOf(guest);
  const { vsockPath } = JSON.parse(await readFile(join(directory, "machine.json"), "utf8")) as { vsockPath: string };
  const sides: Record<"ours" | "raw", Side> = {
    ours: { allocation: guest, program: guestProgram },
    raw: { allocation: raw, program: hostProgram },
  };
  const bare = { vsockPath, bytes };
  if (wanted("latency")) await printLatency(agent, guest, raw);
  if (wanted("output")) {
    const ours = () => execOut(sides.ours, bytes);
    const times = await medians({ ours, raw: () => execOut(sides.raw, bytes), bare: () => bareOut(bare) }, rounds);
    printRates("exec output", times);
  }
  if (wanted("input")) await printInput(sides, bare);
  if (wanted("logs")) await printLogs(agent, guest, bare);
  await printWhole(agent, guest);
}

await run();
