// The default network of VMs, in namespaces that the test makes: the file runs itself again in the agent's, with peers in another.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { before, describe, it } from "node:test";
import { isDeepStrictEqual } from "node:util";
import { readTaps } from "../../src/network/address-pool.ts";
import { TableWatch } from "../../src/network/table-watch.ts";
import { type Allocation, runJob, runService, startJob } from "./support/allocation.ts";
import { runSuccessfully } from "./support/command.ts";
import { inRig } from "./support/environment.ts";
import { machineOf } from "./support/machines.ts";
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
  runInNamespaces,
  serving,
  spoofer,
  tapOf,
  useNetworkFixture,
  waitForAnswer,
  who,
} from "./support/network.ts";
import { nft, removeTablesUntilTheyAreBack } from "./support/packet-rules.ts";
import { waitUntilGone } from "./support/processes.ts";
import { askServer, serveInNamespace } from "./support/sockets.ts";
import { waitFor } from "./support/wait.ts";

runInNamespaces("the default network of VMs", import.meta.filename);

if (!outside) {
  const fixture = useNetworkFixture();
  const registered = async (service: string): Promise<string[]> =>
    ((await fixture.agent.get(`/v1/service/${service}`)) as { Address: string; Port: number }[]).map(
      ({ Address, Port }) => `${Address}:${Port}`,
    );

  describe("the default network", () => {
    let allocation: Allocation;
    before(async () => {
      await fixture.ready();
      // Whoever has rules in this chain makes ours needed.
      await runSuccessfully({ file: "iptables", args: ["-A", "FORWARD", "-i", "another0", "-j", "DROP"] });
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

    it("out: to a peer, which sees the host's address, in front of others' rules", async () => {
      assert.match(await forwardChain(), /litegix-fc-driver/);
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
        { timeoutMs: inRig ? 400_000 : 120_000 },
      );
      assert.equal(seen.stdout.split(" ")[0], expected);
    });

    it("Nomad's services with checks are healthy", async () => {
      await waitForAnswer("two checks that pass", /^success,success$/, async () =>
        (await checksOf(allocation)).join(","),
      );
      assert.deepEqual(await registered("by-host"), [`${agentAddress}:${await hostPort(allocation, "web")}`]);
      assert.deepEqual(await registered("by-driver"), [`${(await tapOf(allocation)).address}:8080`]);
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
            allow   = ["${peerAddress}/32:${who}-${forbidden}/tcp", "${agentAddress}/32", "${address}/32", "169.254.0.0/16"]
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
      const inspected = await inspectedVm(other);
      assert.equal(inspected["network"], "default");
      assert.equal(inspected["tap"], tap);
      assert.ok(Number(inspected["egress_refused_packets"]) >= 4, JSON.stringify(inspected));
      await fixture.agent.nomad(["job", "stop", "-purge", other.job]);
    });

    it("another's IP, ARP and MAC don't pass", async () => {
      const other = await runService({ agent: fixture.agent, config: spoofer });
      await assertSpoofsAreStopped(other, (await tapOf(other)).tap);
      await fixture.agent.nomad(["job", "stop", "-purge", other.job]);
    });

    it("the host's loopback is out of reach, whatever routes the guest has", async () => {
      using _server = await serveInNamespace("/proc/self/ns/net", 4998);
      const other = await runService({ agent: fixture.agent, config: spoofer });
      assert.match(await inVm(other, `nc -w 5 ${agentAddress} 4998 < /dev/null`), /^from /);
      // What the guest sends to 127.0.0.1 leaves it.
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
        await inVm(other, "nc -w 3 127.0.0.1 4998 < /dev/null; echo status $?"),
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

    it("the kernel tells of a table that is removed", async () => {
      using watch = new TableWatch();
      watch.ensure();
      let told = false;
      void watch.next.then(() => {
        told = true;
      });
      const table = ["table", "inet", "litegix_probe"];
      await waitFor({
        what: "the notice",
        timeoutMs: 10_000,
        // Until the watching program listens.
        attempt: async () => {
          await runSuccessfully({ file: "nft", args: ["add", ...table] });
          await runSuccessfully({ file: "nft", args: ["delete", ...table] });
          return told || undefined;
        },
      });
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
      const plugin = await fixture.agent.plugin();
      await fixture.agent.kill();
      process.kill(plugin.pid, "SIGKILL");
      await waitUntilGone({ pid: plugin.pid, timeoutMs: 10_000 });
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

  describe("kill -9", () => {
    const config = `${image}\n${serving}`;
    /** Nomad tells of a task's end before it has the VM destroyed. */
    const waitForOnly = async (taps: ReadonlySet<string>): Promise<void> => {
      await waitFor({
        what: `the interfaces ${[...taps].join(", ")} and no others`,
        timeoutMs: 60_000,
        attempt: async () => {
          const ruleset = await nft("/proc/self/ns/net", "list", "ruleset");
          const seen = [await readTaps(), new Set(ruleset.match(/\blg[0-9a-f]{8}\b/g))];
          return seen.every((set) => isDeepStrictEqual(set, taps)) || undefined;
        },
        seen: async () => [...(await readTaps())].join(),
      });
    };
    /** That of the VM that all tests are about: those that earlier ones stopped are gone. */
    const ownOnly = async (): Promise<Set<string>> =>
      await waitFor({
        what: "one VM",
        timeoutMs: 60_000,
        attempt: async () => {
          const taps = await readTaps();
          return taps.size === 1 ? taps : undefined;
        },
      });

    it("of the plugin in the middle of a start: the task has one network in the end", async () => {
      const { agent } = fixture;
      const present = await ownOnly();
      const plugin = await agent.plugin();
      const started = runService({ agent, config, group: groupNetwork(), restarts: 3 });
      await waitFor({
        what: "a TAP",
        timeoutMs: 120_000,
        intervalMs: 2,
        attempt: async () => (await readTaps()).size > present.size || undefined,
      });
      process.kill(plugin.pid, "SIGKILL");
      const allocation = await started;
      await waitForOnly(new Set([...present, (await tapOf(allocation)).tap]));
      await allocation.stop();
      await waitForOnly(present);
    });

    it("of a VMM and its supervisor at once: nothing is left", async () => {
      const present = await ownOnly();
      const allocation = await runService({ agent: fixture.agent, config, group: groupNetwork() });
      const { vmmPid, shimPid } = await machineOf(allocation);
      process.kill(shimPid, "SIGKILL");
      process.kill(vmmPid, "SIGKILL");
      assert.equal(await allocation.waitForEnd(), "failed");
      await allocation.stop();
      await waitForOnly(present);
    });
  });

  describe("services", () => {
    it("go with their jobs", async () => {
      assert.equal((await registered("by-host")).length, 1);
      const jobs = (await fixture.agent.get("/v1/jobs")) as { ID: string }[];
      for (const { ID } of jobs) await fixture.agent.nomad(["job", "stop", "-purge", ID]);
      await waitForAnswer("no service", /^0,0$/, async () =>
        [await registered("by-host"), await registered("by-driver")].map(({ length }) => length).join(),
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

  describe("afterwards", () => {
    it("no interface, no table and no rule is left; another's rule is", async () => {
      await assertNoNetworkIsLeft(fixture.agent);
      assert.match(await forwardChain(), /^-A FORWARD -i another0 -j DROP$/m);
    });
  });
}
