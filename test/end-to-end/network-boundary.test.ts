// The default network's boundary: metadata services, the host's own services and other networks, the number of connections, and
// a VM without packet rules. In namespaces of the test's own.
import assert from "node:assert/strict";
import { before, describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { leaseOf } from "../../src/network/plan/address-pool.ts";
import { type Allocation, runService } from "./support/allocation.ts";
import { runSuccessfully } from "./support/command.ts";
import { agentAddress, asPeer, peerAddress } from "./support/namespaces.ts";
import {
  addMetadataToPeer,
  assertNoNetworkIsLeft,
  big,
  forwardChain,
  groupNetwork,
  hostPort,
  image,
  inspectedVm,
  inVm,
  metadataOf,
  outside,
  page,
  peer,
  runInNamespaces,
  serving,
  tapOf,
  useNetworkFixture,
  waitForAnswer,
  waitForPage,
  who,
} from "./support/network.ts";
import { driverTables, nft } from "./support/packet-rules.ts";
import { waitUntilGone } from "./support/processes.ts";
import { askServer, serveAsPeer, serveInNamespace } from "./support/sockets.ts";

runInNamespaces("the boundary of VMs' networks", import.meta.filename);

if (!outside) {
  const maxConnections = 20;
  const openPort = 4997;
  const closedPort = 4998;
  const dynamicPort = 25_001;
  const probePort = 4990;
  const otherNetwork = { name: "other0", address: "10.98.5.1" };
  const namedNetwork = { name: "named0", address: "10.98.6.1" };
  const managed = "198.51.100.1";
  const dockerManaged = "198.51.100.129";
  const own = "/proc/self/ns/net";
  const fixture = useNetworkFixture({
    networkConfig: `
      allow_host  = ["0.0.0.0/0:20000-32000", "${agentAddress}:${openPort}/tcp"]
      forward_to  = ["${namedNetwork.name}"]
      connections = ${maxConnections}
    `,
  });
  const run = async (argv: readonly [string, ...string[]]): Promise<string> => {
    const [file, ...args] = argv;
    return await runSuccessfully({ file, args });
  };
  const get = (host: string, port: number): string => `nc -w 3 ${host} ${port} < /dev/null; echo status $?`;

  describe("a VM of the default network", () => {
    let allocation: Allocation;
    before(async () => {
      await fixture.ready();
      for (const address of [managed, dockerManaged]) {
        await run([...asPeer(), "ip", "address", "add", `${address}/32`, "dev", "lo"]);
      }
      for (const { name, address } of [otherNetwork, namedNetwork]) {
        const peerNamespace = (asPeer()[1] ?? "").replace("--net=", "");
        await run(["ip", "link", "add", name, "type", "veth", "peer", "name", `${name}p`, "netns", peerNamespace]);
        await run(["ip", "address", "add", `${address.replace(/1$/, "2")}/24`, "dev", name]);
        await run(["ip", "link", "set", name, "up"]);
        await run([...asPeer(), "ip", "address", "add", `${address}/24`, "dev", `${name}p`]);
        await run([...asPeer(), "ip", "link", "set", `${name}p`, "up"]);
      }
      await run(["iptables", "-P", "FORWARD", "DROP"]);
      await run(["iptables", "-A", "FORWARD", "-d", managed, "-j", "DROP"]);
      await run(["iptables", "-N", "DOCKER-USER"]);
      await run(["iptables", "-A", "DOCKER-USER", "-d", dockerManaged, "-j", "DROP"]);
      allocation = await runService({
        agent: fixture.agent,
        config: `${image}\nports = ["web", "echo"]\nprivileged = true\n${serving}`,
        group: groupNetwork(),
      });
    });

    it("metadata services are refused, whichever cloud's", async () => {
      await addMetadataToPeer(4);
      for (const address of metadataOf(4)) {
        assert.match(await inVm(allocation, get(address, who)), /status 1[\s\S]*refused/, address);
      }
    });

    it("the host's own services are refused, but those that the config and Nomad's dynamic ports open", async () => {
      using _closed = await serveInNamespace(own, closedPort);
      using _open = await serveInNamespace(own, openPort);
      using _dynamic = await serveInNamespace(own, dynamicPort);
      const { address } = await tapOf(allocation);
      const gateway = await inVm(allocation, "ip route | sed -n 's/^default via \\([0-9.]*\\).*/\\1/p'");
      for (const host of [agentAddress, gateway]) {
        assert.match(await inVm(allocation, get(host, closedPort)), /status 1[\s\S]*refused/, host);
        assert.match(await inVm(allocation, get(host, dynamicPort)), new RegExp(`^from ${address}`), host);
      }
      assert.match(await inVm(allocation, get(agentAddress, openPort)), /^from /);
      assert.match(await inVm(allocation, get(gateway, openPort)), /refused/);
      assert.match(
        await inVm(allocation, `echo x | socat -T 3 - UDP4:${agentAddress}:${closedPort}`),
        /No route to host|^$/,
      );
    });

    it("forwarded packets leave by a default route or a named interface only", async () => {
      assert.match(await askServer({ host: otherNetwork.address, port: who, from: "host" }), /^from /);
      assert.match(await inVm(allocation, get(otherNetwork.address, who)), /status 1[\s\S]*refused/);
      assert.match(await inVm(allocation, get(namedNetwork.address, who)), /^from /);
      assert.match(await inVm(allocation, peer(who)), /^from /);
    });

    it("an operator's drops in FORWARD and DOCKER-USER come first, those of later rules soon", async () => {
      assert.match(await inVm(allocation, get(managed, who)), /timed out/);
      assert.match(await inVm(allocation, get(dockerManaged, who)), /timed out/);
      await run(["iptables", "-D", "FORWARD", "-d", managed, "-j", "DROP"]);
      assert.match(await inVm(allocation, get(managed, who)), /^from /);
      await run(["iptables", "-A", "FORWARD", "-d", managed, "-j", "DROP"]);
      await run(["iptables", "-A", "FORWARD", "-j", "REJECT"]);
      await waitForAnswer(
        "the driver's rule between both",
        /198[^\n]*DROP\n[^\n]*litegix[^\n]*\n[^\n]*REJECT/,
        forwardChain,
      );
      assert.match(await inVm(allocation, get(managed, who)), /timed out/);
      assert.match(await inVm(allocation, peer(who)), /^from /);
      await run(["iptables", "-D", "FORWARD", "-j", "REJECT"]);
    });

    it("the VM's connections have a bound, and are counted; another succeeds after some have ended", async () => {
      // Slower than the limit on new connections.
      const open = `for i in $(seq ${maxConnections + 4}); do (sleep 600 | nc ${peerAddress} ${big} > /dev/null 2>&1 &); sleep 0.1; done`;
      await inVm(allocation, open);
      await waitForAnswer("no further connection", /timed out/, () => inVm(allocation, peer(who)));
      const inspected = await inspectedVm(allocation);
      assert.equal(inspected["max_connections"], `${maxConnections}`);
      assert.ok(Number(inspected["excess_connection_packets"]) > 0, JSON.stringify(inspected));
      await inVm(allocation, "killall nc");
      await waitForAnswer("another connection", /^from /, () => inVm(allocation, peer(who)), 120_000);
    });

    it("without rules, driver and agent the guest reaches nothing; they bring it back", async () => {
      const { tap, address } = await tapOf(allocation);
      const targets = ["127.0.0.1", agentAddress, "$gateway", peerAddress, "169.254.169.254"];
      const script = [
        "gateway=$(ip route | sed -n 's/^default via \\([0-9.]*\\).*/\\1/p')",
        // Needs no answer to ARP.
        `arp -s $gateway ${leaseOf(address).tapMac} || echo no ARP entry`,
        // Makes the guest's packets to 127.0.0.1 leave it, and accepts answers from there.
        "for all in /proc/sys/net/ipv4/conf/*/route_localnet; do echo 1 > $all; done",
        "for all in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $all; done",
        "ip route del local 127.0.0.1 dev lo table local",
        "ip route del local 127.0.0.0/8 dev lo table local",
        "own=$(ip -4 addr show eth0 | sed -n 's,.*inet \\([0-9.]*\\)/.*,\\1,p')",
        "ip route add 127.0.0.1 via $gateway dev eth0 src $own || echo no route",
        `(while :; do for host in ${targets.join(" ")}; do echo "$host $(nc -w 1 $host ${probePort} < /dev/null 2>&1)" >> /tmp/seen; done; done) > /dev/null 2>&1 &`,
        "echo began",
      ];
      assert.match(await inVm(allocation, script.join("\n")), /^began$/m);
      const seen = async (): Promise<string> => await inVm(allocation, "cat /tmp/seen");
      const serveBoth = async (): Promise<Disposable[]> => [
        await serveInNamespace(own, probePort),
        await serveAsPeer(probePort),
      ];
      const stop = (servers: readonly Disposable[]): void => {
        for (const server of servers) server[Symbol.dispose]();
      };

      // With the rules the guest reaches the peer, and nothing else.
      const first = await serveBoth();
      await waitForAnswer("the peer's answer", new RegExp(`^${peerAddress} from ${agentAddress}$`, "m"), seen);
      // The driver's rules come back meanwhile.
      for (let flush = 0; flush < 5; flush++) {
        await nft(own, "flush", "ruleset");
        await delay(2_000);
      }
      await waitForAnswer("the rules", new RegExp(tap), () => nft(own, "list", "ruleset"));
      stop(first);
      const withDriver = (await seen()).split("\n").filter((line) => line.includes("from"));
      assert.ok(
        withDriver.every((line) => line.startsWith(`${peerAddress} `)),
        withDriver.join("\n"),
      );

      const plugin = await fixture.agent.plugin();
      const tables = await driverTables(own);
      await inVm(allocation, "sleep 2; : > /tmp/seen");
      await fixture.agent.kill();
      process.kill(plugin.pid, "SIGKILL");
      await waitUntilGone({ pid: plugin.pid, timeoutMs: 10_000 });
      const flushes = [["table", ...(tables[0] ?? "").split(" ")], ["ruleset", "netdev"], ["ruleset"]] as const;
      const servers = [];
      for (const flush of flushes) {
        await nft(own, "flush", ...flush);
        if (servers.length === 0) servers.push(...(await serveBoth()));
        await delay(7_000);
      }
      // Nor does it if the host checks source addresses less.
      for (const filter of ["2", "0"]) {
        await run(["sysctl", "-q", "-w", `net.ipv4.conf.${tap}.rp_filter=${filter}`]);
        await delay(7_000);
      }
      assert.match(await askServer({ host: agentAddress, port: probePort, from: "peer" }), /^from /);
      stop(servers);

      await fixture.agent.launch();
      await allocation.waitForStatus(["running"]);
      await allocation.waitForExec();
      const lines = (await seen()).split("\n");
      assert.ok(lines.length >= 10, lines.join("\n"));
      assert.deepEqual(
        lines.filter((line) => line.includes("from")),
        [],
      );
      await waitForPage(allocation);
      await waitForAnswer("the peer", /^from /, () => inVm(allocation, peer(who)));
      assert.equal(await run(["sysctl", "-n", `net.ipv4.conf.${tap}.rp_filter`]), "1\n");
    });

    it("rules and routes that are gone from within tables come back", async () => {
      const { tap } = await tapOf(allocation);
      for (const table of await driverTables(own)) {
        await nft(own, "flush", "table", ...table.split(" "));
        await waitForPage(allocation);
        await waitForAnswer("the guard and the policy", new RegExp(`counter name "?spoofed_${tap}`), () =>
          nft(own, "list", "ruleset"),
        );
      }
      await run(["ip", "rule", "delete", "pref", "70"]);
      await waitForPage(allocation);
      assert.match(
        await askServer({ host: agentAddress, port: await hostPort(allocation, "web"), text: page, from: "host" }),
        /200 OK/,
      );
    });
  });

  describe("afterwards", () => {
    it("no interface, no table, no rule and no route is left", async () => {
      await assertNoNetworkIsLeft(fixture.agent);
      assert.doesNotMatch(await run(["ip", "rule"]), /19268|19269/);
      assert.equal(await run(["ip", "route", "show", "table", "19269"]).catch(() => ""), "");
    });
  });
}
