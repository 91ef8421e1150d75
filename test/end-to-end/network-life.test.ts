// The default network over time: rules that vanish, plugin, agent and VM that are killed, jobs that go. In namespaces of the test's own.
import assert from "node:assert/strict";
import { createSocket } from "node:dgram";
import { createServer } from "node:net";
import { before, describe, it } from "node:test";
import { isDeepStrictEqual } from "node:util";
import { TableWatch } from "../../src/network/keep/table-watch.ts";
import { readTaps } from "../../src/network/plan/address-pool.ts";
import { type Allocation, runService, startJob } from "./support/allocation.ts";
import { runSuccessfully } from "./support/command.ts";
import { machineOf } from "./support/machines.ts";
import { agentAddress, peerAddress } from "./support/namespaces.ts";
import {
  assertNoNetworkIsLeft,
  big,
  checksOf,
  forbidden,
  groupNetwork,
  image,
  inVm,
  outside,
  peer,
  registered,
  runInNamespaces,
  runWithServices,
  serving,
  tapOf,
  useNetworkFixture,
  waitForAnswer,
  waitForPage,
} from "./support/network.ts";
import { nft, removeTablesUntilTheyAreBack } from "./support/packet-rules.ts";
import { waitUntilGone } from "./support/processes.ts";
import { askServer } from "./support/sockets.ts";
import { waitFor } from "./support/wait.ts";

runInNamespaces("the life of VMs' networks", import.meta.filename);

if (!outside) {
  // As by default, and unlike other tests' agents, Nomad's API listens at each address of the host.
  const fixture = useNetworkFixture({ agentConfig: 'addresses {\n http = "0.0.0.0"\n }' });

  describe("a network", () => {
    let allocation: Allocation;
    before(async () => {
      await fixture.ready();
      allocation = await runWithServices(fixture.agent);
    });

    it("the kernel reports a table that is removed", async () => {
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
      await waitForPage(allocation);
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
      await allocation.waitForExec();
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
    /** Nomad reports a task's end before it destroys the VM. */
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
    /** The interface of the VM that all tests are about, once those of earlier tests' VMs are gone. */
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

  describe("a published port", () => {
    const config = `${image}\nports = ["web"]\n${serving}`;
    const staticPort = (port: number): string => `network {\n port "web" {\n static = ${port}\n to = 8080\n }\n }`;
    /** The VM must not start; returns what Nomad tells the user. */
    const refusal = async (port: number): Promise<string> => {
      const allocation = await startJob({ agent: fixture.agent, type: "service", config, group: staticPort(port) });
      assert.equal(await allocation.waitForEnd(), "failed");
      const events = await allocation.eventText();
      await allocation.agent.nomad(["job", "stop", "-purge", allocation.job]);
      return events;
    };
    /** "free", or the error that a program of the host gets which wants to listen there. */
    const listen = async (port: number, host: string): Promise<string> => {
      const server = createServer();
      const result = await new Promise<string>((resolve) => {
        server.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? ""));
        server.listen(port, host, () => resolve("free"));
      });
      server.close();
      return result;
    };
    const bindUdp = async (port: number): Promise<string> => {
      const socket = createSocket("udp4");
      const result = await new Promise<string>((resolve) => {
        socket.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? ""));
        socket.bind(port, () => resolve("free"));
      });
      socket.close();
      return result;
    };

    it("at which the agent's API listens is refused, with the holder; the API answers as before", async () => {
      const { agent } = fixture;
      const port = Number(new URL(agent.address).port);
      const ask = async (from: "host" | "peer"): Promise<string> =>
        await askServer({ host: agentAddress, port, text: "GET /v1/status/leader HTTP/1.0\r\n\r\n", from });
      const events = await refusal(port);
      assert.match(
        events,
        new RegExp(`port ${port}/tcp of ${agentAddress} is in use by nomad \\(pid ${agent.pid}\\).*\\(port_in_use\\)`),
      );
      for (const from of ["host", "peer"] as const) assert.match(await ask(from), /200 OK[\s\S]*"127\.0\.0\.1:\d+"/);
    });

    it("at which a program of the host listens for datagrams, or with IPv6 for both, is refused", async () => {
      const inUse = (port: string): RegExp =>
        new RegExp(`port ${port} of ${agentAddress} is in use by \\S+ \\(pid ${process.pid}\\).*\\(port_in_use\\)`);
      const socket = createSocket("udp4").bind(23_101);
      assert.match(await refusal(23_101), inUse("23101/udp"));
      socket.close();
      const server = createServer().listen(23_102, "::");
      assert.match(await refusal(23_102), inUse("23102/tcp"));
      server.close();
    });

    it("is the VM's while no driver runs, after the recovery, and until its end", async () => {
      const { agent } = fixture;
      const group = staticPort(23_103);
      const allocation = await runService({ agent, config, group });
      await waitForPage(allocation);
      const assertHeld = async (): Promise<void> => {
        for (const host of [agentAddress, "0.0.0.0", "::"])
          assert.equal(await listen(23_103, host), "EADDRINUSE", host);
        assert.equal(await bindUdp(23_103), "EADDRINUSE");
      };
      await assertHeld();
      const plugin = await agent.plugin();
      await agent.kill();
      process.kill(plugin.pid, "SIGKILL");
      await waitUntilGone({ pid: plugin.pid, timeoutMs: 10_000 });
      await assertHeld();
      await agent.launch();
      await allocation.waitForStatus(["running"]);
      await allocation.waitForExec();
      await assertHeld();
      await waitForPage(allocation);
      // Nomad starts the task again at once: its old VM has let the port go by then.
      const restarted = await agent.nomad(["alloc", "restart", allocation.id]);
      assert.equal(restarted.exitCode, 0, restarted.stderr);
      await allocation.waitForStatus(["running"]);
      await allocation.waitForExec();
      await waitForPage(allocation);
      assert.doesNotMatch(await allocation.eventText(), /port_in_use/);
      await allocation.stop();
      assert.equal(await listen(23_103, "0.0.0.0"), "free");
      assert.equal(await bindUdp(23_103), "free");
    });
  });

  describe("services", () => {
    it("go with their jobs", async () => {
      assert.equal((await registered(fixture.agent, "by-host")).length, 1);
      const jobs = (await fixture.agent.get("/v1/jobs")) as { ID: string }[];
      for (const { ID } of jobs) await fixture.agent.nomad(["job", "stop", "-purge", ID]);
      await waitForAnswer("no service", /^0,0$/, async () =>
        [await registered(fixture.agent, "by-host"), await registered(fixture.agent, "by-driver")]
          .map(({ length }) => length)
          .join(),
      );
    });
  });

  describe("afterwards", () => {
    it("no interface, no table and no rule is left", () => assertNoNetworkIsLeft(fixture.agent));
  });
}
