// The network of VMs, in namespaces that the test makes: the file runs itself again in the agent's, with peers in another.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { after, before, describe, it } from "node:test";
import { type Allocation, runJob, runService, startJob } from "./support/allocation.ts";
import { run, runSuccessfully } from "./support/command.ts";
import { skipVms } from "./support/environment.ts";
import { Fixture } from "./support/fixture.ts";
import { ImageBuilder } from "./support/image-builder.ts";
import { waitUntilNoMachineIsLeft } from "./support/machines.ts";
import { agentAddress, agentInterface, inside, peerAddress, runInside } from "./support/namespaces.ts";
import { removeTablesUntilTheyAreBack } from "./support/packet-rules.ts";
import type { Registry } from "./support/registry.ts";
import { askServer, serveAsPeer, serveInNamespace } from "./support/sockets.ts";
import { waitFor } from "./support/wait.ts";

const image = 'image = "socat:latest"';
const who = 5000;
const big = 5001;
const forbidden = 5002;

/** A page at 8080 and an echo for datagrams at 9090. */
const serving = `
  command = "/bin/sh"
  args = ["-c", "mkdir -p /www; hostname > /www/index.html; httpd -p 8080 -h /www; exec socat UDP4-LISTEN:9090,fork PIPE"]
`;
const page = "GET / HTTP/1.0\r\n\r\n";

function groupNetwork(mode = ""): string {
  return `
    network {
      ${mode}
      port "web" { to = 8080 }
      port "echo" { to = 9090 }
    }
  `;
}

interface PortsDocument {
  readonly AllocatedResources: { readonly Shared: { readonly Ports: { Label: string; Value: number }[] } };
}

async function hostPort(allocation: Allocation, label: string): Promise<number> {
  const document = (await allocation.agent.get(`/v1/allocation/${allocation.id}`)) as unknown as PortsDocument;
  const port = document.AllocatedResources.Shared.Ports.find(({ Label }) => Label === label);
  assert.ok(port, `port ${label}`);
  return port.Value;
}

async function inVm(allocation: Allocation, script: string): Promise<string> {
  const result = await allocation.exec(["/bin/sh", "-c", script]);
  return `${result.stdout}${result.stderr}`.trim();
}

async function waitForAnswer(what: string, wanted: RegExp, ask: () => Promise<string>): Promise<void> {
  let last = "";
  await waitFor({
    what,
    timeoutMs: 30_000,
    attempt: async () => {
      last = await ask();
      return wanted.test(last) || undefined;
    },
    seen: () => last,
  });
}

async function checksOf(allocation: Allocation): Promise<string[]> {
  const checks = (await allocation.agent.get(`/v1/client/allocation/${allocation.id}/checks`)) as Record<
    string,
    { Status: string }
  >;
  return Object.values(checks).map(({ Status }) => Status);
}

async function counterOf(prefix: string, tap: string, namespace = "/proc/self/ns/net"): Promise<number> {
  const text = await runSuccessfully({
    file: "nsenter",
    args: [`--net=${namespace}`, "nft", "-j", "list", "counters"],
  });
  const { nftables } = JSON.parse(text) as { nftables: { counter?: { name: string; packets: number } }[] };
  const counters = nftables.flatMap(({ counter }) => (counter?.name === `${prefix}_${tap}` ? [counter.packets] : []));
  assert.notEqual(counters.length, 0, `no counter ${prefix}_${tap}`);
  return counters.reduce((sum, packets) => sum + packets, 0);
}

async function tapOf(allocation: Allocation): Promise<{ tap: string; address: string }> {
  const address = /inet (\d+\.\d+\.\d+\.\d+)/.exec(await inVm(allocation, "ip -4 addr show eth0"))?.[1] ?? "";
  const hex = address
    .split(".")
    .map((part) => Number(part).toString(16).padStart(2, "0"))
    .join("");
  return { tap: `lg${hex}`, address };
}

/** A root that may change its interface: nothing leaves with addresses that are not the VM's. */
async function assertSpoofsAreStopped(allocation: Allocation, tap: string, namespace?: string): Promise<void> {
  const spoofs = [
    `ip addr add 10.66.66.66/32 dev eth0 && ping -c 1 -W 1 -I 10.66.66.66 ${peerAddress}`,
    "arping -c 1 -w 2 -U -I eth0 -s 10.66.66.66 10.66.66.66",
    `ip link set eth0 address 02:66:66:66:66:66 && ping -c 1 -W 1 ${peerAddress}`,
  ];
  for (const spoof of spoofs) {
    const before = await counterOf("spoofed", tap, namespace);
    const output = await inVm(allocation, spoof);
    assert.ok((await counterOf("spoofed", tap, namespace)) > before, `${spoof}: ${output}`);
    assert.doesNotMatch(output, / 0% packet loss/, spoof);
  }
}

const spoofer = `${image}
  command = "sleep"
  args    = ["3600"]
  cap_add = ["NET_ADMIN", "NET_RAW"]`;

/** busybox with socat: its nc knows no UDP. */
async function pushSocatImage(registry: Registry): Promise<void> {
  await using images = await ImageBuilder.create();
  const source = await images.create("socat");
  const fill = `
    for file in $(command -v socat) $(ldd "$(command -v socat)" | grep -o '/[^ ]*'); do
      install -D "$(readlink -f "$file")" ".$file"
    done
  `;
  await images.addLayer("socat", { fill, at: "/" });
  await registry.push({ source, name: "library/socat:latest" });
}

const outside = inside === undefined;

describe("the network of VMs", { skip: skipVms || !outside }, () => {
  it("in namespaces of its own", async () => {
    assert.equal(await runInside(import.meta.filename), 0);
  });
});

if (!outside) {
  const fixture = Fixture.use(
    (address) => `
      registry "docker.io" { mirrors = ["http://${address}"] }
      network {
        egress_deny     = ["10.99.0.1/32:${forbidden}/tcp"]
        connection_rate = 20
      }
    `,
    { networkInterface: agentInterface },
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
  const peer = (port: number): string => `nc -w 5 ${peerAddress} ${port} < /dev/null; echo status $?`;

  describe("the default network", () => {
    let allocation: Allocation;
    before(async () => {
      await fixture.ready();
      allocation = await runService({
        agent: fixture.agent,
        config: `${image}\nports = ["web", "echo"]\n${serving}`,
        group: groupNetwork(),
        task: `
          service {
            name = "by-host"
            provider = "nomad"
            port = "web"
            check {
              type = "http"
              path = "/"
              interval = "1s"
              timeout = "1s"
            }
          }
          service {
            name = "by-driver"
            provider = "nomad"
            port = "web"
            address_mode = "driver"
            check {
              type = "tcp"
              interval = "1s"
              timeout = "1s"
            }
          }
        `,
      });
    });

    it("out: to a peer, which sees the host's address", async () => {
      assert.match(await inVm(allocation, peer(who)), new RegExp(`from ${agentAddress}\nstatus 0`));
    });

    it("in: from a peer and from the host, TCP and UDP", async () => {
      const web = await hostPort(allocation, "web");
      const echo = await hostPort(allocation, "echo");
      const name = await inVm(allocation, "hostname");
      for (const from of ["peer", "host"] as const) {
        await waitForAnswer(`the page from the ${from}`, new RegExp(name), () =>
          askServer({ host: agentAddress, port: web, text: page, from }),
        );
      }
      await waitForAnswer("the echo", /^hello$/, () =>
        askServer({ host: agentAddress, port: echo, text: "hello", kind: "udp", from: "peer" }),
      );
    });

    it("64 MB there and back are the same", async () => {
      const mebibyte = 1024 * 1024;
      const pattern = `yes 0123456789 | head -c ${mebibyte} > /tmp/pattern`;
      const block = "0123456789\n".repeat(mebibyte / 11 + 1).slice(0, mebibyte);
      const expected = createHash("md5").update(block.repeat(64)).digest("hex");
      const seen = await allocation.exec(
        [
          "/bin/sh",
          "-c",
          `${pattern}; for i in $(seq 64); do cat /tmp/pattern; done | nc ${peerAddress} ${big} | md5sum`,
        ],
        { timeoutMs: 120_000 },
      );
      assert.equal(seen.stdout.split(" ")[0], expected);
    });

    it("Nomad's services with checks are healthy", async () => {
      await waitForAnswer("two checks that pass", /^success,success$/, async () =>
        (await checksOf(allocation)).join(","),
      );
    });

    it("the VM knows itself by its address; NOMAD_PORT is the port inside", async () => {
      const { address } = await tapOf(allocation);
      assert.match(await inVm(allocation, "cat /etc/hosts"), new RegExp(`^${address.replaceAll(".", "\\.")}\\s`, "m"));
      assert.match(
        await inVm(allocation, "echo $NOMAD_PORT_web $NOMAD_ADDR_web"),
        new RegExp(`^8080 ${agentAddress}:`),
      );
    });

    it("another VM reaches it through the host's port, not by its address; metadata is refused; policy is kept", async () => {
      const web = await hostPort(allocation, "web");
      const { address } = await tapOf(allocation);
      const other = await runService({
        agent: fixture.agent,
        config: `
          ${image}
          command = "sleep"
          args = ["3600"]
          egress {
            default = "deny"
            allow   = ["${peerAddress}/32:${who}-${forbidden}/tcp", "${agentAddress}/32", "${address}/32"]
          }
        `,
      });
      const get = (host: string, port: number): string =>
        `printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 ${host} ${port}; echo status $?`;
      assert.match(await inVm(other, get(agentAddress, web)), /200 OK/);
      assert.match(await inVm(other, get(address, 8080)), /status 1[\s\S]*refused/);
      assert.match(await inVm(other, get("169.254.169.254", 80)), /status 1[\s\S]*refused/);
      assert.match(await inVm(other, peer(who)), /status 0/);
      // The plugin's floor, and what nothing allows.
      assert.match(await inVm(other, peer(forbidden)), /status 1[\s\S]*refused/);
      assert.match(await inVm(other, get(peerAddress, 4999)), /status 1[\s\S]*refused/);
      const { tap } = await tapOf(other);
      assert.ok((await counterOf("refused", tap)) >= 4);
      await fixture.agent.nomad(["job", "stop", "-purge", other.job]);
    });

    it("another's IP, ARP and MAC don't pass", async () => {
      const other = await runService({ agent: fixture.agent, config: spoofer });
      await assertSpoofsAreStopped(other, (await tapOf(other)).tap);
      await fixture.agent.nomad(["job", "stop", "-purge", other.job]);
    });

    it("connections that come too fast are dropped and counted; then the VM goes on", async () => {
      const { tap } = await tapOf(allocation);
      await inVm(
        allocation,
        `for i in $(seq 200); do nc -w 1 ${peerAddress} ${who} < /dev/null > /dev/null & done; wait`,
      );
      assert.ok((await counterOf("flooded", tap)) > 0);
      await waitForAnswer("the peer", /status 0/, () => inVm(allocation, peer(who)));
    });

    it("rules that something on the host removes come back", async () => {
      await removeTablesUntilTheyAreBack({ tap: (await tapOf(allocation)).tap });
      const web = await hostPort(allocation, "web");
      await waitForAnswer("the page", /200 OK/, () =>
        askServer({ host: agentAddress, port: web, text: page, from: "peer" }),
      );
      assert.match(await inVm(allocation, peer(forbidden)), /status 1[\s\S]*refused/);
    });

    it("an open connection outlives the plugin and the agent", async () => {
      const count = "i=0; while [ $i -lt 600 ]; do i=$((i+1)); echo $i; sleep 0.2; done";
      await inVm(allocation, `(${count}) | nc ${peerAddress} ${big} > /tmp/echoed 2> /dev/null & echo began`);
      const echoed = async (): Promise<number> => Number((await inVm(allocation, "tail -n 1 /tmp/echoed")) || "0");
      await waitFor({
        what: "the first echo",
        timeoutMs: 10_000,
        attempt: async () => (await echoed()) > 0 || undefined,
      });
      await fixture.agent.kill();
      await fixture.agent.launch();
      await allocation.waitForStatus(["running"]);
      const seen = await echoed();
      await waitFor({
        what: "more echoes",
        timeoutMs: 10_000,
        attempt: async () => (await echoed()) > seen + 2 || undefined,
      });
      await waitForAnswer("checks after the restart", /^success,success$/, async () =>
        (await checksOf(allocation)).join(","),
      );
    });
  });

  describe("no network", () => {
    it('network_mode = "none" leaves loopback', async () => {
      const allocation = await runJob({
        agent: fixture.agent,
        config: `${image}\nnetwork_mode = "none"\ncommand = "/bin/sh"\nargs = ["-c", "ls /sys/class/net; echo end"]`,
      });
      await allocation.waitForLog(/^end$/m);
      assert.equal(await allocation.log(), "lo\nend\n");
    });
  });

  describe("what can't be", () => {
    const cases = [
      { config: 'ports = ["nobody"]', says: /ports = "nobody": is no port label.*web, echo/ },
      { config: 'egress { deny = ["10.0.0.0/33"] }', says: /egress\.deny: .*10\.0\.0\.0\/33.*no address or CIDR/ },
      { config: 'network_mode = "host"', says: /network_mode = "host": must be "none"/ },
    ];
    for (const { config, says } of cases) {
      it(config, async () => {
        const allocation = await startJob({
          agent: fixture.agent,
          config: `${image}\n${config}`,
          group: groupNetwork(),
        });
        assert.equal(await allocation.waitForEnd(30_000), "failed");
        assert.match(await allocation.eventText(), says);
      });
    }
  });

  describe("Nomad's bridge", () => {
    let allocation: Allocation;
    let namespace: string;
    let address: string;
    before(async () => {
      await fixture.ready();
      allocation = await runService({
        agent: fixture.agent,
        config: `${image}\n${serving}`,
        group: `${groupNetwork('mode = "bridge"')}
          service {
            name     = "bridged"
            provider = "nomad"
            port     = "web"
            check {
              type     = "http"
              path     = "/"
              interval = "1s"
              timeout  = "1s"
            }
          }`,
      });
      namespace = `/run/netns/${allocation.id}`;
      address = /inet (172\.26\.\d+\.\d+)\/20/.exec(await inVm(allocation, "ip addr show eth0"))?.[1] ?? "";
    });

    it("the VM has the allocation's address", async () => {
      const own = await runSuccessfully({
        file: "nsenter",
        args: [`--net=${namespace}`, "ip", "-4", "addr", "show", "eth0"],
      });
      assert.ok(address !== "" && own.includes(`${address}/`), own);
      assert.match(await inVm(allocation, "echo $NOMAD_ALLOC_ADDR_web"), new RegExp(`${address}:8080`));
    });

    it("out and in", async () => {
      assert.match(await inVm(allocation, peer(who)), new RegExp(`from ${agentAddress}\nstatus 0`));
      const web = await hostPort(allocation, "web");
      const echo = await hostPort(allocation, "echo");
      for (const from of ["peer", "host"] as const) {
        await waitForAnswer(`the page from the ${from}`, /200 OK/, () =>
          askServer({ host: agentAddress, port: web, text: page, from }),
        );
      }
      await waitForAnswer("the echo", /^hello$/, () =>
        askServer({ host: agentAddress, port: echo, text: "hello", kind: "udp", from: "peer" }),
      );
      await waitForAnswer("a check that passes", /^success$/, async () => (await checksOf(allocation)).join(","));
    });

    it("the namespace's own programs reach it at its address and on loopback", async () => {
      for (const host of [address, "127.0.0.1"]) {
        assert.match(await askServer({ host, port: 8080, text: page, namespace }), /200 OK/);
      }
    });

    it("a sidecar's own port stays its own, from outside too, and the VM reaches it", async () => {
      using _sidecar = await serveInNamespace(namespace, 6060);
      assert.match(await askServer({ host: address, port: 6060, from: "host" }), /^from 172\.26\./);
      assert.match(await inVm(allocation, "nc -w 5 169.254.230.1 6060 < /dev/null"), /from 169\.254\.230\.2/);
    });

    it("two VMs of a group: each its port, and each reaches the other", async () => {
      const second = (name: string, port: number, label: string): string => `
        ${image}
        ports   = ["${label}"]
        command = "/bin/sh"
        args    = ["-c", "mkdir -p /www; echo page of ${name} > /www/index.html; exec httpd -f -p ${port} -h /www"]
      `;
      const both = await runService({
        agent: fixture.agent,
        config: second("main", 8080, "web"),
        group: `
          network {
            mode = "bridge"
            port "web" { to = 8080 }
            port "admin" { to = 7070 }
          }
          task "second" {
            driver = "litegix-fc-driver"
            config { ${second("second", 7070, "admin")} }
            resources {
              cpu    = 50
              memory = 192
            }
          }
        `,
      });
      for (const [label, name] of [
        ["web", "main"],
        ["admin", "second"],
      ] as const) {
        const port = await hostPort(both, label);
        await waitForAnswer(`the page of ${name}`, new RegExp(`page of ${name}`), () =>
          askServer({ host: agentAddress, port, text: page, from: "peer" }),
        );
      }
      const get = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 127.0.0.1";
      assert.match(await inVm(both, `${get} 7070`), /page of second/);
      assert.match(await inVm(both, `${get} 8080`), /page of main/);
      const fromSecond = await both.agent.nomad([
        "alloc",
        "exec",
        "-task",
        "second",
        both.id,
        "/bin/sh",
        "-c",
        `${get} 8080`,
      ]);
      assert.match(fromSecond.stdout, /page of main/);
      await fixture.agent.nomad(["job", "stop", "-purge", both.job]);
    });

    it("another's IP, ARP and MAC don't pass", async () => {
      const other = await runService({ agent: fixture.agent, config: spoofer, group: groupNetwork('mode = "bridge"') });
      await assertSpoofsAreStopped(other, "lga9fee602", `/run/netns/${other.id}`);
      await fixture.agent.nomad(["job", "stop", "-purge", other.job]);
    });

    it("rules that something in the namespace removes come back", async () => {
      await removeTablesUntilTheyAreBack({ namespace, tap: "lga9fee602" });
      const web = await hostPort(allocation, "web");
      await waitForAnswer("the page", /200 OK/, () =>
        askServer({ host: agentAddress, port: web, text: page, from: "peer" }),
      );
    });

    it("the TAP is in the namespace, not in the host's", async () => {
      const inNamespace = await runSuccessfully({ file: "nsenter", args: [`--net=${namespace}`, "ip", "-br", "link"] });
      assert.match(inNamespace, /^lga9fee602\s/m);
    });
  });

  describe("afterwards", () => {
    it("no interface, no table and no rule is left", async () => {
      const jobs = (await fixture.agent.get("/v1/jobs")) as { ID: string }[];
      await Promise.all(jobs.map(({ ID }) => fixture.agent.nomad(["job", "stop", "-purge", ID])));
      await waitUntilNoMachineIsLeft(fixture.agent);
      assert.doesNotMatch(await readFile("/proc/self/net/dev", "utf8"), /^\s*lg[0-9a-f]{8}:/m);
      assert.doesNotMatch((await run({ file: "nft", args: ["list", "tables"] })).stdout, /litegix/);
      // Nomad's own rules in that chain made ours needed.
      const forward = await runSuccessfully({ file: "iptables", args: ["-S", "FORWARD"] });
      assert.match(forward, /^-A FORWARD /m);
      assert.doesNotMatch(forward, /litegix/);
    });
  });
}
