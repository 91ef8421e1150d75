// VMs in Nomad's bridge, in namespaces that the test makes: the file runs itself again in the agent's, with peers in another.
import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { before, describe, it } from "node:test";
import { type Allocation, runService } from "./support/allocation.ts";
import { cniCheck } from "./support/cni-check.ts";
import { runSuccessfully } from "./support/command.ts";
import { javaClientConfig, javaTask, skipJava } from "./support/java-task.ts";
import { assertVmmIsApart } from "./support/machines.ts";
import { agentAddress, agentInterface, peerAddress } from "./support/namespaces.ts";
import {
  addMetadataToPeer,
  assertNoNetworkIsLeft,
  assertServiceGoesWith,
  assertSpoofsAreStopped,
  forbidden,
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
  runWithPolicy,
  serviceBlock,
  serving,
  spoofer,
  useNetworkFixture,
  waitForAnswer,
  waitForEcho,
  waitForPage,
  waitForPassingCheck,
  who,
} from "./support/network.ts";
import { driverTables, nft, removeTablesUntilTheyAreBack } from "./support/packet-rules.ts";
import { askServer, serveInNamespace } from "./support/sockets.ts";

runInNamespaces("VMs in Nomad's bridge", import.meta.filename);

if (!outside) {
  const fixture = useNetworkFixture({ clientConfig: javaClientConfig });

  describe("Nomad's bridge", () => {
    let allocation: Allocation;
    let namespace: string;
    let address: string;
    before(async () => {
      await fixture.ready();
      allocation = await runService({
        agent: fixture.agent,
        config: `${image}\n${serving}`,
        group: groupNetwork('mode = "bridge"') + serviceBlock({ name: "bridged", check: "http" }),
      });
      namespace = `/run/netns/${allocation.id}`;
      address = /inet (172\.26\.\d+\.\d+)\/20/.exec(await inVm(allocation, "ip addr show eth0"))?.[1] ?? "";
    });

    it("the VMM itself is in namespaces of its own, without an interface", () => assertVmmIsApart(allocation));

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
      for (const from of ["peer", "host"] as const) await waitForPage(allocation, from);
      await waitForEcho(allocation);
      await waitForPassingCheck(allocation);
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

    it("a task of the java driver in the group: each reaches the other, and both are reached", {
      skip: skipJava,
    }, async () => {
      const both = await runService({
        agent: fixture.agent,
        config: `${image}\nports = ["web"]\n${serving}`,
        group: `
          network {
            mode = "bridge"
            port "web" { to = 8080 }
            port "java" { to = 6060 }
          }
          ${javaTask({ name: "java", port: 6060, asks: { host: "127.0.0.1", port: 8080 } })}
        `,
      });
      try {
        const name = await inVm(both, "hostname");
        // With its standard error, for the reason if the program prints nothing.
        const logOfJava = async (): Promise<string> => {
          const logs = ["-stdout", "-stderr"].map((stream) =>
            fixture.agent.nomad(["alloc", "logs", stream, "-task", "java", both.id]),
          );
          return (await Promise.all(logs)).map(({ stdout }) => stdout).join("");
        };
        const reads = new RegExp(`java reads HTTP/1.1 200 OK .*${name}`);
        // Nomad builds the task's directory first, by copying if that lies on another file system than the JDK.
        await waitForAnswer("the VM's page in java's log", reads, logOfJava, 240_000);
        for (const from of ["peer", "host"] as const) {
          const web = await hostPort(both, "web");
          const java = await hostPort(both, "java");
          assert.match(await askServer({ host: agentAddress, port: web, text: page, from }), /200 OK/);
          assert.match(await askServer({ host: agentAddress, port: java, from }), /^java answers /);
        }
        const address = (await inVm(both, "echo $NOMAD_ALLOC_ADDR_java")).replace(/:\d+$/, "");
        for (const host of [address, "127.0.0.1", "169.254.230.1"]) {
          assert.match(await inVm(both, `nc -w 5 ${host} 6060 < /dev/null`), /java answers/, host);
        }
      } finally {
        await fixture.agent.nomad(["job", "stop", "-purge", both.job]);
      }
    });

    it("two VMs of a group: each its port, and each reaches the other, by its name too while it runs", async () => {
      const second = (name: string, port: number, label: string): string => `
        ${image}
        ports   = ["${label}"]
        command = "/bin/sh"
        args    = ["-c", "mkdir -p /www; echo page of ${name} > /www/index.html; httpd -p ${port} -h /www; until [ -f /tmp/end ]; do sleep 0.2; done"]
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
            lifecycle { hook = "poststart" }
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
      const inSecond = async (script: string): Promise<string> =>
        (await both.agent.nomad(["alloc", "exec", "-task", "second", both.id, "/bin/sh", "-c", script])).stdout;
      assert.match(await inSecond(`${get} 8080`), /page of main/);
      // The first VM learns the other's name afterwards.
      await waitForAnswer("the name of second", /^169\.254\.230\.6\s+second\b/m, () => inVm(both, "cat /etc/hosts"));
      assert.match(await inVm(both, "wget -q -O - http://second:7070/"), /page of second/);
      assert.match(await inSecond("wget -q -O - http://main:8080/"), /page of main/);
      await inSecond("touch /tmp/end");
      await waitForAnswer("a file of hosts without second", /^(?!.*\bsecond\b)/s, () => inVm(both, "cat /etc/hosts"));
      await fixture.agent.nomad(["job", "stop", "-purge", both.job]);
    });

    it("policy is kept: traffic that no rule allows or the plugin's floor denies is refused, and counted", async () => {
      const allow = [`${peerAddress}/32:${who}-${forbidden}/tcp`];
      const other = await runWithPolicy(fixture.agent, allow, groupNetwork('mode = "bridge"'));
      assert.match(await inVm(other, peer(who)), /status 0/);
      assert.match(await inVm(other, peer(forbidden)), /status 1[\s\S]*refused/);
      assert.match(await inVm(other, peer(4999)), /status 1[\s\S]*refused/);
      const inspected = await inspectedVm(other);
      assert.ok(Number(inspected["egress_refused_packets"]) >= 2, JSON.stringify(inspected));
      await fixture.agent.nomad(["job", "stop", "-purge", other.job]);
    });

    it("metadata services and the host's own services are refused, but Nomad's dynamic ports", async () => {
      await addMetadataToPeer(4);
      const [closed, dynamic, published] = [4998, 25_000, await hostPort(allocation, "web")];
      using _closed = await serveInNamespace("/proc/self/ns/net", closed);
      using _dynamic = await serveInNamespace("/proc/self/ns/net", dynamic);
      const get = (host: string, port: number): Promise<string> =>
        inVm(allocation, `nc -w 5 ${host} ${port} < /dev/null; echo status $?`);
      for (const host of metadataOf(4)) assert.match(await get(host, who), /status 1[\s\S]*refused/, host);
      const gateway = "172.26.64.1";
      for (const host of [agentAddress, gateway]) {
        assert.match(await get(host, closed), /status 1[\s\S]*refused/, host);
        assert.match(await get(host, dynamic), /^from /, host);
      }
      const other = await runService({
        agent: fixture.agent,
        config: `${image}\n${serving}`,
        group: groupNetwork('mode = "bridge"'),
      });
      const ask = `printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 ${agentAddress} ${published}`;
      assert.match(await inVm(other, ask), /200 OK/);
      await fixture.agent.nomad(["job", "stop", "-purge", other.job]);
      // The driver follows the host's addresses.
      await runSuccessfully({ file: "ip", args: ["address", "add", "10.99.0.77/24", "dev", agentInterface] });
      await waitForAnswer("a refusal at the new address", /refused/, () => get("10.99.0.77", closed));
      await runSuccessfully({ file: "ip", args: ["address", "del", "10.99.0.77/24", "dev", agentInterface] });
    });

    it("another's IP, ARP and MAC don't pass", async () => {
      const other = await runService({ agent: fixture.agent, config: spoofer, group: groupNetwork('mode = "bridge"') });
      await assertSpoofsAreStopped(other, "lga9fee602", `/run/netns/${other.id}`);
      await fixture.agent.nomad(["job", "stop", "-purge", other.job]);
    });

    it("rules that something in the namespace removes come back", async () => {
      await removeTablesUntilTheyAreBack({ namespace, tap: "lga9fee602" });
      await waitForPage(allocation);
      await nft(namespace, "flush", "ruleset", "netdev");
      await nft(namespace, "add", "table", "netdev", (await driverTables(namespace))[0]?.replace("inet ", "") ?? "");
      await waitForAnswer("the guard", /spoofed_lga9fee602/, () => nft(namespace, "list", "ruleset"));
    });

    it("a namespace that vanished is named, with what helps; the VM that was in it goes on until then", async () => {
      const lost = await runService({
        agent: fixture.agent,
        config: `${image}\n${serving}`,
        group: groupNetwork('mode = "bridge"'),
      });
      await runSuccessfully({ file: "ip", args: ["netns", "delete", lost.id] });
      assert.match(await inVm(lost, "hostname"), /^[0-9a-f]{8}$/);
      await fixture.agent.nomad(["alloc", "restart", lost.id]);
      await waitForAnswer(
        "the namespace's name",
        /network namespace \/\S*\/netns\/\S+ can't be used: it is not there any more/,
        () => lost.eventText(),
      );
      await fixture.agent.nomad(["job", "stop", "-purge", lost.job]);
    });

    it("a namespace that vanished while agent and plugin were away: the VM is ended, others go on", async () => {
      const lost = await runService({
        agent: fixture.agent,
        config: `${image}\n${serving}`,
        group: groupNetwork('mode = "bridge"'),
      });
      const vm = await inVm(lost, "hostname");
      assert.match(vm, /^[0-9a-f]{8}$/);
      await fixture.agent.interrupt();
      await runSuccessfully({ file: "ip", args: ["netns", "delete", lost.id] });
      await fixture.agent.launch();
      // Nomad itself finds the namespace gone, and fails the allocation.
      await lost.waitForEnd();
      assert.match(await lost.eventText(), /Setup Failure: .*network/);
      await waitForAnswer("no VM of it", /^$/, async () =>
        (await readdir(`${fixture.agent.basePath}/vms`)).filter((id) => id === vm).join(),
      );
      await waitForPage(allocation);
      await fixture.agent.nomad(["job", "stop", "-purge", lost.job]);
    });

    it("the TAP is in the namespace, not in the host's", async () => {
      const inNamespace = await runSuccessfully({ file: "nsenter", args: [`--net=${namespace}`, "ip", "-br", "link"] });
      assert.match(inNamespace, /^lga9fee602\s/m);
    });

    it("CNI's check passes; the service goes with the job and the namespace with it", async () => {
      assert.deepEqual(await cniCheck(allocation), []);
      await assertServiceGoesWith(allocation, "bridged");
      await waitForAnswer("no namespace", /^$/, async () =>
        (await readdir("/run/netns")).filter((name) => name === allocation.id).join(),
      );
    });
  });

  describe("afterwards", () => {
    it("no interface, no table and no rule is left", () => assertNoNetworkIsLeft(fixture.agent));
  });
}
