// Shared by the tests of VMs' networks: jobs that serve, ports, rules' counters, and guests that spoof.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { isIP } from "node:net";
import { after, before, describe, it } from "node:test";
import { metadataAddresses } from "../../../src/network/plan/egress-policy.ts";
import type { Agent } from "./agent.ts";
import { type Allocation, runService } from "./allocation.ts";
import { runSuccessfully } from "./command.ts";
import { driverPath, inRig, skipVms } from "./environment.ts";
import { Fixture, type FixtureOptions } from "./fixture.ts";
import { copyPrograms, ImageBuilder } from "./image-builder.ts";
import { waitUntilNoMachineIsLeft } from "./machines.ts";
import { agentAddress, agentInterface, asPeer, inside, peerAddress, runInside } from "./namespaces.ts";
import type { Registry } from "./registry.ts";
import { askServer, serveAsPeer } from "./sockets.ts";
import { waitFor } from "./wait.ts";

export const image = 'image = "socat:latest"';
export const who = 5000;
export const big = 5001;
export const forbidden = 5002;

/** A page at 8080 and an echo for datagrams at 9090. */
export const serving = `
  command = "/bin/sh"
  args = ["-c", "mkdir -p /www; hostname > /www/index.html; httpd -p 8080 -h /www; exec socat UDP4-LISTEN:9090,fork PIPE"]
`;
export const page = "GET / HTTP/1.0\r\n\r\n";

export function groupNetwork(mode = ""): string {
  return `
    network {
      ${mode}
      port "web" { to = 8080 }
      port "echo" { to = 9090 }
    }
  `;
}

/** A Nomad service at the port "web". `setting`: lines for the block. */
export function serviceBlock(options: { name: string; check: "http" | "tcp"; setting?: string }): string {
  const { name, check, setting = "" } = options;
  return `
    service {
      name     = "${name}"
      provider = "nomad"
      port     = "web"
      ${setting}
      check {
        type     = "${check}"
        ${check === "http" ? 'path = "/"' : ""}
        interval = "1s"
        timeout  = "1s"
      }
    }
  `;
}

/** A VM with a page and an echo, whose services Nomad checks: "by-host" and "by-driver". */
export async function runWithServices(agent: Agent): Promise<Allocation> {
  return await runService({
    agent,
    config: `${image}\nports = ["web", "echo"]\n${serving}`,
    group: groupNetwork(),
    task:
      serviceBlock({ name: "by-host", check: "http" }) +
      serviceBlock({ name: "by-driver", check: "tcp", setting: 'address_mode = "driver"' }),
  });
}

/** A VM that waits, and may connect only to what `allow` names. */
export async function runWithPolicy(agent: Agent, allow: readonly string[], group = ""): Promise<Allocation> {
  const config = `${image}
    command = "sleep"
    args    = ["3600"]
    egress {
      default = "deny"
      allow   = ${JSON.stringify(allow)}
    }`;
  return await runService({ agent, config, group });
}

/** The address at which Nomad lists a service. */
export async function registered(agent: Agent, service: string): Promise<string[]> {
  const found = (await agent.get(`/v1/service/${service}`)) as { Address: string; Port: number }[];
  return found.map(({ Address, Port }) => `${Address}:${Port}`);
}

interface PortsDocument {
  readonly AllocatedResources: { readonly Shared: { readonly Ports: { Label: string; Value: number }[] } };
}

export async function hostPort(allocation: Allocation, label: string): Promise<number> {
  const document = (await allocation.agent.get(`/v1/allocation/${allocation.id}`)) as unknown as PortsDocument;
  const port = document.AllocatedResources.Shared.Ports.find(({ Label }) => Label === label);
  assert.ok(port, `port ${label}`);
  return port.Value;
}

export async function inVm(allocation: Allocation, script: string): Promise<string> {
  const result = await allocation.exec(["/bin/sh", "-c", script]);
  return `${result.stdout}${result.stderr}`.trim();
}

/** The output of `litegix-fc-driver inspect` about an allocation's only VM. */
export async function inspectedVm(allocation: Allocation): Promise<Record<string, string>> {
  const args = ["inspect", "--json", "--rootfs-base-path", allocation.agent.basePath, allocation.id];
  const [vm, ...others] = JSON.parse(await runSuccessfully({ file: driverPath, args })) as Record<string, string>[];
  assert.ok(vm !== undefined && others.length === 0, "one VM");
  return vm;
}

export async function waitForAnswer(
  what: string,
  wanted: RegExp,
  ask: () => Promise<string>,
  timeoutMs = inRig ? 120_000 : 30_000,
): Promise<void> {
  let last = "";
  await waitFor({
    what,
    timeoutMs,
    attempt: async () => {
      last = await ask();
      return wanted.test(last) || undefined;
    },
    seen: () => last,
  });
}

/** Asks for the VM's page at the host's port "web" until it comes. */
export async function waitForPage(allocation: Allocation, from: "peer" | "host" = "peer"): Promise<void> {
  const port = await hostPort(allocation, "web");
  await waitForAnswer(`the page, asked by the ${from}`, /200 OK/, () =>
    askServer({ host: agentAddress, port, text: page, from }),
  );
}

/** Sends a datagram from the peer to the host's port "echo" until it comes back. */
export async function waitForEcho(allocation: Allocation): Promise<void> {
  const port = await hostPort(allocation, "echo");
  await waitForAnswer("the echo", /^hello$/, () =>
    askServer({ host: agentAddress, port, text: "hello", kind: "udp", from: "peer" }),
  );
}

export async function waitForPassingCheck(allocation: Allocation): Promise<void> {
  await waitForAnswer("a check that passes", /^success$/, async () => (await checksOf(allocation)).join(","));
}

/** Stops the allocation. Its service must be there before, and go with it. */
export async function assertServiceGoesWith(allocation: Allocation, service: string): Promise<void> {
  const services = async (): Promise<string> => JSON.stringify(await allocation.agent.get("/v1/services"));
  assert.match(await services(), new RegExp(`"${service}"`));
  await allocation.stop();
  await waitForAnswer("no service", new RegExp(`^(?!.*"${service}")`), services);
}

export async function checksOf(allocation: Allocation): Promise<string[]> {
  const checks = (await allocation.agent.get(`/v1/client/allocation/${allocation.id}/checks`)) as Record<
    string,
    { Status: string }
  >;
  return Object.values(checks).map(({ Status }) => Status);
}

export async function counterOf(prefix: string, tap: string, namespace = "/proc/self/ns/net"): Promise<number> {
  const text = await runSuccessfully({
    file: "nsenter",
    args: [`--net=${namespace}`, "nft", "-j", "list", "counters"],
  });
  const { nftables } = JSON.parse(text) as { nftables: { counter?: { name: string; packets: number } }[] };
  const counters = nftables.flatMap(({ counter }) => (counter?.name === `${prefix}_${tap}` ? [counter.packets] : []));
  assert.notEqual(counters.length, 0, `no counter ${prefix}_${tap}`);
  return counters.reduce((sum, packets) => sum + packets, 0);
}

export async function tapOf(allocation: Allocation): Promise<{ tap: string; address: string }> {
  const address = /inet (\d+\.\d+\.\d+\.\d+)/.exec(await inVm(allocation, "ip -4 addr show eth0"))?.[1] ?? "";
  const hex = address
    .split(".")
    .map((part) => Number(part).toString(16).padStart(2, "0"))
    .join("");
  return { tap: `lg${hex}`, address };
}

const spoofsOverIpv4 = [
  `ip addr add 10.66.66.66/32 dev eth0 && ping -c 1 -W 1 -I 10.66.66.66 ${peerAddress}`,
  "arping -c 1 -w 2 -U -I eth0 -s 10.66.66.66 10.66.66.66",
  `ip link set eth0 address 02:66:66:66:66:66 && ping -c 1 -W 1 ${peerAddress}`,
];

/** Even a root that may change its interface sends no packet with addresses that are not the VM's. */
export async function assertSpoofsAreStopped(
  allocation: Allocation,
  tap: string,
  namespace?: string,
  spoofs: readonly string[] = spoofsOverIpv4,
): Promise<void> {
  for (const spoof of spoofs) {
    const before = await counterOf("spoofed", tap, namespace);
    const output = await inVm(allocation, spoof);
    assert.ok((await counterOf("spoofed", tap, namespace)) > before, `${spoof}: ${output}`);
    assert.doesNotMatch(output, / 0% packet loss/, spoof);
  }
}

export const spoofer = `${image}
  command = "sleep"
  args    = ["3600"]
  cap_add = ["NET_ADMIN", "NET_RAW"]`;

/** busybox with socat: its nc knows no UDP. */
export async function pushSocatImage(registry: Registry): Promise<void> {
  await using images = await ImageBuilder.create();
  const source = await images.create("socat");
  const fill = copyPrograms(["socat"]);
  await images.addLayer("socat", { fill, at: "/" });
  await registry.push({ source, name: "library/socat:latest" });
}

/** The addresses of clouds' metadata services of one family. */
export const metadataOf = (version: 4 | 6): string[] =>
  metadataAddresses.filter((address) => isIP(address) === version);

/** The peers answer at the metadata services' addresses, and the host reaches them there. */
export async function addMetadataToPeer(version: 4 | 6): Promise<void> {
  const [file, ...words] = asPeer();
  for (const address of metadataOf(version)) {
    const flags = version === 6 ? ["nodad"] : [];
    const args = ["ip", "address", "replace", `${address}/${version === 6 ? 128 : 32}`, "dev", "lo", ...flags];
    await runSuccessfully({ file, args: [...words, ...args] });
    assert.match(await askServer({ host: address, port: who, from: "host" }), /^from /, address);
  }
}

export const peer = (port: number): string => `nc -w 5 ${peerAddress} ${port} < /dev/null; echo status $?`;

/** False in the second run of a test file, within its agent's namespace. */
export const outside = inside === undefined;

/** A file's only case outside the namespaces; all others run inside. */
export function runInNamespaces(title: string, file: string, skip = skipVms): void {
  describe(title, { skip: skip || !outside }, () => {
    it("in namespaces of its own", () => runInside(file));
  });
}

/** In the agent's namespace: an agent with the image that serves, and peers that listen. */
export function useNetworkFixture(
  options: Pick<FixtureOptions, "agentConfig" | "cniNetworks" | "clientConfig" | "env"> & {
    pluginConfig?: string;
    /** Lines for the plugin's network block. */
    networkConfig?: string;
  } = {},
): Fixture {
  const fixture = Fixture.use(
    (address) => `
      registry "docker.io" { mirrors = ["http://${address}"] }
      ${options.pluginConfig ?? ""}
      network {
        egress_deny     = ["10.99.0.1/32:${forbidden}/tcp"]
        connection_rate = 20
        ${options.networkConfig ?? ""}
      }
    `,
    { ...options, networkInterface: agentInterface },
  );
  const servers: Disposable[] = [];
  before(async () => {
    await fixture.ready();
    await pushSocatImage(fixture.registry);
    servers.push(await serveAsPeer(who), await serveAsPeer(big, "big"), await serveAsPeer(forbidden));
  });
  after(() => {
    for (const server of servers) server[Symbol.dispose]();
  });
  return fixture;
}

export async function forwardChain(): Promise<string> {
  return await runSuccessfully({ file: "iptables", args: ["-S", "FORWARD"] });
}

/** Ends every job first. */
export async function assertNoNetworkIsLeft(agent: Agent): Promise<void> {
  const jobs = (await agent.get("/v1/jobs")) as { ID: string }[];
  await Promise.all(jobs.map(({ ID }) => agent.nomad(["job", "stop", "-purge", ID])));
  await waitUntilNoMachineIsLeft(agent);
  assert.doesNotMatch(await readFile("/proc/self/net/dev", "utf8"), /^\s*lg[0-9a-f]{8}:/m);
  assert.doesNotMatch(await runSuccessfully({ file: "nft", args: ["list", "tables"] }), /litegix/);
  assert.doesNotMatch(await forwardChain(), /litegix/);
}
