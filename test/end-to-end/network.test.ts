// The default network of VMs, in namespaces that the test makes: the file runs itself again in the agent's, with peers in another.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { before, describe, it } from "node:test";
import { type Allocation, runJob, runService, startJob } from "./support/allocation.ts";
import { runSuccessfully } from "./support/command.ts";
import { inRig } from "./support/environment.ts";
import { assertVmmIsApart } from "./support/machines.ts";
import { agentAddress, peerAddress } from "./support/namespaces.ts";
import {
  assertNoNetworkIsLeft,
  assertSpoofsAreStopped,
  big,
  checksOf,
  counterOf,
  forbidden,
  forwardChain,
  groupNetwork,
  hostPort,
  image,
  inspectedVm,
  inVm,
  outside,
  page,
  peer,
  registered,
  runInNamespaces,
  runWithPolicy,
  runWithServices,
  spoofer,
  tapOf,
  useNetworkFixture,
  waitForAnswer,
  waitForEcho,
  who,
} from "./support/network.ts";
import { askServer, serveInNamespace } from "./support/sockets.ts";

runInNamespaces("the default network of VMs", import.meta.filename);

if (!outside) {
  const fixture = useNetworkFixture();
  describe("the default network", () => {
    let allocation: Allocation;
    before(async () => {
      await fixture.ready();
      // The driver needs a rule of its own in this chain only if others have rules there.
      await runSuccessfully({ file: "iptables", args: ["-A", "FORWARD", "-i", "another0", "-j", "DROP"] });
      allocation = await runWithServices(fixture.agent);
    });

    it("the VMM itself is in namespaces of its own, without an interface", () => assertVmmIsApart(allocation));

    it("out: to a peer, which sees the host's address, beside others' rules", async () => {
      assert.match(await forwardChain(), /litegix-fc-driver/);
      assert.match(await inVm(allocation, peer(who)), new RegExp(`from ${agentAddress}\nstatus 0`));
    });

    it("in: from a peer and from the host, TCP and UDP", async () => {
      const web = await hostPort(allocation, "web");
      const name = await inVm(allocation, "hostname");
      for (const from of ["peer", "host"] as const) {
        await waitForAnswer(`the page from the ${from}`, new RegExp(name), () =>
          askServer({ host: agentAddress, port: web, text: page, from }),
        );
      }
      await waitForEcho(allocation);
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
        { timeoutMs: inRig ? 900_000 : 120_000 },
      );
      assert.equal(seen.stdout.split(" ")[0], expected);
    });

    it("Nomad's services with checks are healthy", async () => {
      await waitForAnswer("two checks that pass", /^success,success$/, async () =>
        (await checksOf(allocation)).join(","),
      );
      assert.deepEqual(await registered(fixture.agent, "by-host"), [
        `${agentAddress}:${await hostPort(allocation, "web")}`,
      ]);
      assert.deepEqual(await registered(fixture.agent, "by-driver"), [`${(await tapOf(allocation)).address}:8080`]);
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
      const other = await runWithPolicy(fixture.agent, [
        `${peerAddress}/32:${who}-${forbidden}/tcp`,
        `${agentAddress}/32`,
        `${address}/32`,
        "169.254.0.0/16",
      ]);
      const get = (host: string, port: number): string =>
        `printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 ${host} ${port}; echo status $?`;
      assert.match(await inVm(other, get(agentAddress, web)), /200 OK/);
      assert.match(await inVm(other, get(address, 8080)), /status 1[\s\S]*refused/);
      assert.match(await inVm(other, get("169.254.169.254", 80)), /status 1[\s\S]*refused/);
      assert.match(await inVm(other, peer(who)), /status 0/);
      // Neither the plugin's floor nor the default lets these through.
      assert.match(await inVm(other, peer(forbidden)), /status 1[\s\S]*refused/);
      assert.match(await inVm(other, get(peerAddress, 4999)), /status 1[\s\S]*refused/);
      const { tap } = await tapOf(other);
      assert.ok((await counterOf("refused", tap)) >= 4);
      const inspected = await inspectedVm(other);
      assert.equal(inspected["network"], "default");
      assert.equal(inspected["tap"], tap);
      assert.ok(Number(inspected["egress_refused_packets"]) >= 4, JSON.stringify(inspected));
      await fixture.agent.nomad(["job", "stop", "-purge", other.job]);
    });

    it("UDP: another VM has the echo through the host's port; what its policy allows for TCP alone is refused", async () => {
      const web = await hostPort(allocation, "web");
      const echo = await hostPort(allocation, "echo");
      const other = await runWithPolicy(fixture.agent, [
        `${agentAddress}/32:${web}/tcp`,
        `${agentAddress}/32:${echo}/udp`,
      ]);
      const ask = (kind: "TCP" | "UDP", port: number): Promise<string> =>
        inVm(other, `echo hello | socat -T 5 - ${kind}4:${agentAddress}:${port}`);
      assert.equal(await ask("UDP", echo), "hello");
      assert.match(await ask("UDP", web), /No route to host/);
      assert.match(await ask("TCP", echo), /refused/);
      assert.ok((await counterOf("refused", (await tapOf(other)).tap)) >= 2);
      await fixture.agent.nomad(["job", "stop", "-purge", other.job]);
    });

    it("another's IP, ARP and MAC don't pass", async () => {
      const other = await runService({ agent: fixture.agent, config: spoofer });
      await assertSpoofsAreStopped(other, (await tapOf(other)).tap);
      await fixture.agent.nomad(["job", "stop", "-purge", other.job]);
    });

    it("the host's loopback is out of reach, whatever routes the guest has", async () => {
      // Nomad's dynamic ports are open at the host's other addresses.
      const port = 25_000;
      using _server = await serveInNamespace("/proc/self/ns/net", port);
      const other = await runService({ agent: fixture.agent, config: spoofer });
      assert.match(await inVm(other, `nc -w 5 ${agentAddress} ${port} < /dev/null`), /^from /);
      // Makes the guest's packets to 127.0.0.1 leave the guest.
      const routes = [
        "gateway=$(ip route | sed -n 's/^default via \\([0-9.]*\\).*/\\1/p')",
        "ip route del local 127.0.0.1 dev lo table local",
        "ip route del local 127.0.0.0/8 dev lo table local",
        "ip route add 127.0.0.1 via $gateway dev eth0",
        "ip route get 127.0.0.1",
      ];
      assert.match(await inVm(other, routes.join(" && ")), /via [\d.]+ dev eth0/);
      const { tap } = await tapOf(other);
      const before = await counterOf("spoofed", tap);
      assert.match(
        await inVm(other, `nc -w 3 127.0.0.1 ${port} < /dev/null; echo status $?`),
        /^status 1\nnc: timed out$/,
      );
      assert.ok((await counterOf("spoofed", tap)) > before);
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

  describe("impossible settings", () => {
    const cases = [
      { config: 'ports = ["nobody"]', says: /ports = "nobody": is not a port label.*web, echo/ },
      {
        config: 'egress { deny = ["10.0.0.0/33"] }',
        says: /egress\.deny: .*10\.0\.0\.0\/33.*is not an address or CIDR/,
      },
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

  describe("afterwards", () => {
    it("no interface, no table and no rule is left; another's rule is", async () => {
      await assertNoNetworkIsLeft(fixture.agent);
      assert.match(await forwardChain(), /^-A FORWARD -i another0 -j DROP$/m);
    });
  });
}
