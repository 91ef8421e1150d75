// Compares StartTask, with the image already stored, to bare Firecracker from its spawn to the first instruction of
// init. Both use the same kernel, initramfs, command line, CPUs and memory, by turns in one run. Then a waterfall of
// the median start. Needs a KVM that runs guests. Usage: node measure-boot.ts BASE-DIRECTORY RUNS
import { spawn } from "node:child_process";
import { cp, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { encode } from "@msgpack/msgpack";
import type { BootSource } from "../../../src/gen/firecracker/api.ts";
import { bootRequests } from "../../../src/vmm/firecracker/boot-requests.ts";
import { quietArguments } from "../../../src/vmm/machine-spec.ts";
import { probeAnswer, probeArgument } from "../../../src/vmm/probe-kvm.ts";
import { PluginClient } from "./plugin-client.ts";
import { formatWaterfall, median, type Step } from "./waterfall.ts";

const vcpuCount = 1;
const memSizeMib = 256;
const firecrackerPath = process.env["FIRECRACKER"] ?? "firecracker";
const [, , prepared = "/nonexistent", runsText = "3"] = process.argv;

/** From spawn to the first line that init prints. */
async function measureBare(configPath: string): Promise<number> {
  // The shell prints the time at which it becomes Firecracker, so that Node's time to spawn it does not count.
  const script = 'echo "at $EPOCHREALTIME"; exec "$0" --no-api --config-file "$1"';
  const child = spawn("bash", ["-c", script, firecrackerPath, configPath], { stdio: ["ignore", "pipe", "ignore"] });
  let output = "";
  try {
    return await new Promise((resolve, reject) => {
      child.stdout.on("data", (chunk: Buffer) => {
        output += chunk.toString();
        const spawnedAt = Number(/^at (\d+\.\d+)/.exec(output)?.[1]) * 1000;
        if (output.includes(probeAnswer)) resolve(performance.timeOrigin + performance.now() - spawnedAt);
      });
      child.once("error", reject);
      child.once("close", (code) =>
        reject(new Error(`Firecracker ended (${code}) before init: ${output.slice(-500)}`)),
      );
    });
  } finally {
    child.kill("SIGKILL");
  }
}

/** The same guest as the driver's, by the configuration file: Firecracker's shortest way. */
async function writeBareConfig(base: string): Promise<string> {
  const names = await readdir(join(base, "boot"));
  const bootFile = (prefix: string): string => join(base, "boot", names.find((name) => name.startsWith(prefix)) ?? "");
  const { lanes } = bootRequests({
    config: {
      id: "bare",
      directory: base,
      spec: {
        vcpuCount,
        memSizeMib,
        vmlinuxPath: bootFile("vmlinux-"),
        initramfsPath: bootFile("initramfs-"),
        kernelArguments: [...quietArguments, probeArgument],
        options: {},
      },
      vsock: false,
      drives: [],
    },
    vsockPath: "",
    vmmPath: (path) => path,
  });
  const bodies = new Map(lanes.flat().map(({ operation, body }) => [operation, body]));
  const path = join(base, "bare.json");
  await writeFile(
    path,
    JSON.stringify({
      "boot-source": bodies.get("PUT /boot-source") as BootSource,
      "machine-config": bodies.get("PUT /machine-config"),
      drives: [],
    }),
  );
  return path;
}

async function measureStart(plugin: PluginClient, run: number): Promise<{ ms: number; steps: Step[] }> {
  const id = `bench-${run}/task/00000000`;
  const startedAt = performance.now();
  await plugin.driver.startTask({
    task: {
      id,
      name: "task",
      allocId: `bench-${run}`,
      msgpackDriverConfig: encode({ image: "busybox:1", command: "/bin/sleep", args: ["1000"] }),
      stdoutPath: "/dev/null",
      stderrPath: "/dev/null",
      resources: {
        allocatedResources: { cpu: { cpuShares: 1000n }, memory: { memoryMb: BigInt(memSizeMib) } },
      },
    },
  });
  const ms = performance.now() - startedAt;
  await plugin.driver.destroyTask({ taskId: id, force: true });
  const line = plugin.logs.findLast((log) => log["@message"] === "start timeline in ms");
  return { ms, steps: (line?.["steps"] ?? []) as Step[] };
}

const base = await mkdtemp(join(tmpdir(), "lgb-"));
try {
  await cp(prepared, base, { recursive: true });
  await using plugin = await PluginClient.start({
    rootfs_base_path: base,
    vmm: "firecracker",
    ...(firecrackerPath.startsWith("/") ? { firecracker_path: firecrackerPath } : {}),
  });
  const bareConfig = await writeBareConfig(base);
  const bares: number[] = [];
  const ratios: number[] = [];
  const starts: { ms: number; steps: Step[] }[] = [];
  // The first run of each warms caches.
  for (let run = 0; run <= Number(runsText); run++) {
    const bare = await measureBare(bareConfig);
    const start = await measureStart(plugin, run);
    console.log(
      `run ${run}: bare ${bare.toFixed(0)} ms, StartTask ${start.ms.toFixed(0)} ms${run === 0 ? " (not counted)" : ""}`,
    );
    if (run === 0) continue;
    bares.push(bare);
    starts.push(start);
    ratios.push(start.ms / bare);
  }
  const bare = median(bares);
  const ms = median(starts.map((start) => start.ms));
  console.log(formatWaterfall(starts.find((start) => start.ms === ms)?.steps ?? []));
  console.log(`bare Firecracker, spawn to init:          ${bare.toFixed(0)} ms (median of ${bares.length})`);
  console.log(`StartTask to the workload's start:        ${ms.toFixed(0)} ms (median of ${starts.length})`);
  console.log(`ratio:                                    ${(ms / bare).toFixed(2)} (goal: at most 1.10)`);
  console.log(`  of each pair:                           ${median(ratios).toFixed(2)} (median)`);
} finally {
  await rm(base, { recursive: true, force: true });
}
