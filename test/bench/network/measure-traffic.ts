// Throughput, requests and latency between a VM and a client beside its TAP, with the driver's rules and without.
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Agent, driverName } from "../../end-to-end/support/agent.ts";
import { type Allocation, runService } from "../../end-to-end/support/allocation.ts";
import { runSuccessfully } from "../../end-to-end/support/command.ts";
import { copyPrograms, ImageBuilder } from "../../end-to-end/support/image-builder.ts";
import { machineOf } from "../../end-to-end/support/machines.ts";
import { agentAddress, agentInterface } from "../../end-to-end/support/namespaces.ts";
import { hostPort } from "../../end-to-end/support/network.ts";
import { driverTables, nft } from "../../end-to-end/support/packet-rules.ts";
import { Registry } from "../../end-to-end/support/registry.ts";
import { median } from "../median.ts";
import { pinMachine, pinnedClient } from "./pin.ts";

const seconds = Number(process.env["LITEGIX_BENCH_SECONDS"] ?? 1);
const rounds = Number(process.env["LITEGIX_BENCH_ROUNDS"] ?? 15);
const requests = 300;
const ports = { web: 8080, stream: 5201, pingpong: 5300 } as const;
type Port = keyof typeof ports;

/** A client's way to the VM's ports. */
interface Way {
  /** The client's namespace. */
  readonly namespace: string;
  readonly host: string;
  readonly port: (port: Port) => number;
}

const measurements = {
  "into the VM": { unit: "Mbit/s", run: (way: Way) => throughput(way, []) },
  "out of the VM": { unit: "Mbit/s", run: (way: Way) => throughput(way, ["--reverse"]) },
  "requests, a connection each": { unit: "/s", run: requestRate },
  "round trips": { unit: "/s", run: roundTrips },
} as const;

async function inNamespace(way: Way, argv: readonly string[]): Promise<string> {
  return await runSuccessfully({
    file: "nsenter",
    args: [`--net=${way.namespace}`, "--", ...pinnedClient, ...argv],
    timeoutMs: 120_000,
  });
}

function found(output: string, pattern: RegExp): number {
  const [, value] = pattern.exec(output) ?? [];
  if (value === undefined) throw new Error(`no ${pattern} in ${output}`);
  return Number(value);
}

async function throughput(way: Way, flags: readonly string[]): Promise<number> {
  const to = ["-c", way.host, "-p", `${way.port("stream")}`, "-t", `${seconds}`, "--omit", "1", "--json"];
  const output = JSON.parse(await inNamespace(way, ["iperf3", ...to, ...flags])) as {
    end: { sum_received: { bits_per_second: number } };
  };
  return output.end.sum_received.bits_per_second / 1e6;
}

async function requestRate(way: Way): Promise<number> {
  const url = `http://${way.host}:${way.port("web")}/`;
  const output = await inNamespace(way, ["ab", "-q", "-s", "60", "-n", `${requests}`, "-c", "4", url]);
  return found(output, /Requests per second:\s+([\d.]+)/);
}

/** On one connection, one round trip after the other. */
async function roundTrips(way: Way): Promise<number> {
  const to = ["--tcp", "-i", way.host, "-p", `${way.port("pingpong")}`, "-t", `${seconds}`];
  return 1e6 / (2 * found(await inNamespace(way, ["sockperf", "ping-pong", ...to]), /avg-latency=([\d.]+)/));
}

/** Without rules no packet sees the routes to guests of the default network: makes routes that all packets see. */
async function openDirectRoutes(namespace: string): Promise<{ close: () => Promise<void> }> {
  const ip = (...args: string[]): Promise<string> =>
    runSuccessfully({ file: "nsenter", args: [`--net=${namespace}`, "ip", ...args] });
  const rules = await ip("rule", "show", "pref", "71");
  if (rules === "") return { close: async () => {} };
  const guests = [...(await ip("route", "show", "table", "19268")).matchAll(/^(\S+) dev (\S+)/gm)];
  const change = async (to: "add" | "delete"): Promise<void> => {
    for (const [, address = "", tap = ""] of guests) await ip("route", to, address, "dev", tap);
  };
  await change("add");
  await ip("rule", "delete", "pref", "71");
  return {
    close: async () => {
      await ip("rule", "add", "pref", "71", "lookup", "19269", "protocol", "kernel");
      await change("delete");
    },
  };
}

/** The stopped driver can't restore the rules meanwhile. */
async function withoutRules<T>(agent: Agent, namespace: string, action: () => Promise<T>): Promise<T> {
  const directory = await mkdtemp(join(tmpdir(), "litegix-bench-"));
  const { pid } = await agent.plugin();
  process.kill(pid, "SIGSTOP");
  try {
    const tables = await driverTables(namespace);
    if (tables.length === 0) throw new Error("no rules of the driver's");
    const lists = tables.map((table) => nft(namespace, "list", "table", ...table.split(" ")));
    const file = join(directory, "rules");
    await writeFile(file, (await Promise.all(lists)).join("\n"));
    for (const table of tables) await nft(namespace, "delete", "table", ...table.split(" "));
    const direct = await openDirectRoutes(namespace);
    try {
      return await action();
    } finally {
      await direct.close();
      await nft(namespace, "-f", file);
    }
  } finally {
    process.kill(pid, "SIGCONT");
    await rm(directory, { recursive: true });
  }
}

type Name = keyof typeof measurements;
const names = Object.keys(measurements) as Name[];

async function compare(options: { agent: Agent; title: string; ours: Way; bare: Way }): Promise<void> {
  const { agent, ours, bare } = options;
  const seen = new Map(names.map((name) => [name, { ours: [] as number[], bare: [] as number[] }]));
  for (let round = 0; round < rounds; round++) {
    for (const name of names) {
      const values = seen.get(name);
      const measureOurs = async (): Promise<unknown> => values?.ours.push(await measurements[name].run(ours));
      const measureBare = async (): Promise<unknown> =>
        values?.bare.push(await withoutRules(agent, bare.namespace, () => measurements[name].run(bare)));
      // By turns: the second measurement may meet a machine that is warmer, or busier.
      const pair = [measureOurs, measureBare];
      for (const measure of round % 2 === 0 ? pair : pair.toReversed()) await measure();
    }
  }
  for (const name of names) {
    const values = seen.get(name) ?? { ours: [], bare: [] };
    const { unit } = measurements[name];
    const [mine, plain] = [median(values.ours), median(values.bare)];
    // The ratio of each pair: a slow moment of the machine affects both sides of a pair, but not both medians.
    const ratio = median(values.ours.map((value, round) => value / (values.bare[round] ?? Number.NaN)));
    console.log(
      `${options.title.padEnd(9)}${name.padEnd(28)}${mine.toFixed(0)} ${unit}; bare TAP ${plain.toFixed(0)}: ` +
        `${ratio.toFixed(2)} (wanted: 0.90), the medians' ratio ${(mine / plain).toFixed(2)}`,
    );
  }
}

async function startServers(agent: Agent, mode: string): Promise<Allocation> {
  const labels = Object.entries(ports);
  const allocation = await runService({
    agent,
    memoryMib: 256,
    config: `image = "servers:latest"
      ports   = ${JSON.stringify(Object.keys(ports))}
      command = "/bin/sh"
      args    = ["-c", "mkdir -p /www; echo hello > /www/index.html; httpd -p 8080 -h /www; sockperf server --tcp -p 5300 & iperf3 -s -p 5201 & sleep 1; echo serving; wait"]`,
    group: `network {
      ${mode}
      ${labels.map(([label, to]) => `port "${label}" { to = ${to} }`).join("\n")}
    }`,
  });
  await allocation.waitForLog(/serving/);
  await pinMachine((await machineOf(allocation)).vmmPid);
  return allocation;
}

const addressOf = async (allocation: Allocation, pattern: RegExp): Promise<string> => {
  const { stdout } = await allocation.exec(["/bin/ip", "-4", "addr", "show", "eth0"]);
  const [, address] = pattern.exec(stdout) ?? [];
  if (address === undefined) throw new Error(`no ${pattern} in ${stdout}`);
  return address;
};

async function pushImage(registry: Registry): Promise<void> {
  await using images = await ImageBuilder.create();
  const source = await images.create("servers");
  const fill = copyPrograms(["iperf3", "sockperf"]);
  await images.addLayer("servers", { fill, at: "/" });
  await registry.push({ source, name: "library/servers:latest" });
}

export async function measureTraffic(): Promise<void> {
  await using registry = await Registry.start();
  await pushImage(registry);
  await using agent = await Agent.start({
    pluginConfig: `registry "docker.io" { mirrors = ["http://${registry.address}"] }`,
    networkInterface: agentInterface,
  });
  const { Attributes: attributes } = await agent.node();
  const fact = (name: string): string => attributes[`driver.${driverName}.${name}`] ?? "?";
  console.log(`${fact("vmm")} ${fact("vmm_version")}, ${fact("acceleration")}; medians of ${rounds} rounds`);

  const own = await startServers(agent, "");
  const hostPorts = new Map<Port, number>();
  for (const label of Object.keys(ports) as Port[]) hostPorts.set(label, await hostPort(own, label));
  const namespace = "/proc/self/ns/net";
  await compare({
    agent,
    title: "default",
    ours: { namespace, host: agentAddress, port: (label) => hostPorts.get(label) ?? 0 },
    bare: { namespace, host: await addressOf(own, /inet ([\d.]+)/), port: (label) => ports[label] },
  });
  await agent.nomad(["job", "stop", "-purge", own.job]);

  const bridged = await startServers(agent, 'mode = "bridge"');
  const place = { namespace: `/run/netns/${bridged.id}`, port: (label: Port) => ports[label] };
  await compare({
    agent,
    title: "bridge",
    ours: { ...place, host: await addressOf(bridged, /inet (172[\d.]+)/) },
    bare: { ...place, host: await addressOf(bridged, /inet (169[\d.]+)/) },
  });
  await agent.nomad(["job", "stop", "-purge", bridged.job]);
}
