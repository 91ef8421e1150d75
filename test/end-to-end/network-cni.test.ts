// VMs in a CNI network of the operator's own, with IPv4 and IPv6, in namespaces that the test makes (as network.test.ts).
import assert from "node:assert/strict";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { type Allocation, runService } from "./support/allocation.ts";
import { cniCheck } from "./support/cni-check.ts";
import { machineOf } from "./support/machines.ts";
import { agentAddress, agentAddressV6, peerAddressV6 } from "./support/namespaces.ts";
import {
  addMetadataToPeer,
  assertNoNetworkIsLeft,
  assertServiceGoesWith,
  assertSpoofsAreStopped,
  groupNetwork,
  image,
  inVm,
  metadataOf,
  outside,
  page,
  runInNamespaces,
  serviceBlock,
  serving,
  spoofer,
  useNetworkFixture,
  waitForPage,
  waitForPassingCheck,
  who,
} from "./support/network.ts";
import { askServer, serveInNamespace } from "./support/sockets.ts";

runInNamespaces("VMs in a CNI network", import.meta.filename);

if (!outside) {
  const leases = join(tmpdir(), `litegix-cni-${process.pid}`);
  const bridge = {
    type: "bridge",
    bridge: "dual0",
    isGateway: true,
    ipMasq: true,
    mtu: 1400,
    ipam: {
      type: "host-local",
      dataDir: leases,
      ranges: [[{ subnet: "10.98.0.0/24" }], [{ subnet: "fd98::/64" }]],
      routes: [{ dst: "0.0.0.0/0" }, { dst: "::/0" }],
    },
  };
  const portmap = { type: "portmap", capabilities: { portMappings: true }, snat: true };
  const dual = { cniVersion: "1.0.0", name: "dual", plugins: [{ type: "loopback" }, bridge, portmap] };
  const fixture = useNetworkFixture({ cniNetworks: { dual } });
  after(() => rm(leases, { recursive: true, force: true }));

  describe("a CNI network with two families", () => {
    let allocation: Allocation;
    let addresses: { four: string; six: string };
    before(async () => {
      await fixture.ready();
      allocation = await runService({
        agent: fixture.agent,
        config: `${image}\n${serving}`,
        group: groupNetwork('mode = "cni/dual"') + serviceBlock({ name: "dual", check: "tcp" }),
      });
      const shown = await inVm(allocation, "ip addr show eth0");
      const [, four = ""] = /inet (10\.98\.0\.\d+)\/24/.exec(shown) ?? [];
      const [, six = ""] = /inet6 (fd98::[0-9a-f:]+)\/64/.exec(shown) ?? [];
      assert.ok(four !== "" && six !== "", shown);
      addresses = { four, six };
    });

    it("the VM has both addresses, the MTU and the routes of the allocation, at once usable", async () => {
      const shown = await inVm(allocation, "ip addr show eth0; ip route; ip -6 route");
      assert.match(shown, /mtu 1400/);
      assert.doesNotMatch(shown, /tentative/);
      assert.match(shown, /^default via 169\.254\.230\.1 .*src 10\.98\./m);
      assert.match(shown, /^default via fe80::1 .*src fd98:/m);
    });

    it("out over IPv6, to a peer that sees the host's address", async () => {
      const answer = await inVm(allocation, `socat -T 5 - TCP6:[${peerAddressV6}]:${who} < /dev/null`);
      assert.equal(answer, `from ${agentAddressV6}`);
    });

    it("metadata services and the host's own services are refused over both families, but Nomad's dynamic ports", async () => {
      await addMetadataToPeer(4);
      await addMetadataToPeer(6);
      const [closed, dynamic] = [4998, 25_000];
      using _closed = await serveInNamespace("/proc/self/ns/net", closed);
      using _dynamic = await serveInNamespace("/proc/self/ns/net", dynamic);
      const get = (host: string, port: number): Promise<string> =>
        inVm(allocation, `socat -T 3 - TCP:${host.includes(":") ? `[${host}]` : host}:${port} < /dev/null`);
      for (const host of [...metadataOf(4), ...metadataOf(6)]) assert.match(await get(host, who), /refused/, host);
      for (const host of [agentAddress, agentAddressV6, "fd98::1"]) {
        assert.match(await get(host, closed), /refused/, host);
        assert.match(await get(host, dynamic), /^from /, host);
      }
    });

    it("in over IPv6 at the allocation's address, and over IPv4 by Nomad's port", async () => {
      assert.match(await askServer({ host: addresses.six, port: 8080, text: page, from: "host" }), /200 OK/);
      const namespace = `/run/netns/${allocation.id}`;
      assert.match(await askServer({ host: addresses.six, port: 8080, text: page, namespace }), /200 OK/);
      await waitForPage(allocation);
    });

    it("two VMs talk at the addresses that they know themselves by", async () => {
      const other = await runService({
        agent: fixture.agent,
        config: `${image}\n${serving}`,
        group: groupNetwork('mode = "cni/dual"'),
      });
      const own = await inVm(other, "ip -6 addr show eth0 | sed -n 's,.*inet6 \\(fd98[^/]*\\)/.*,\\1,p'");
      const get = (address: string): string =>
        `printf 'GET / HTTP/1.0\\r\\n\\r\\n' | socat -T 5 - TCP6:[${address}]:8080`;
      assert.match(await inVm(allocation, get(own)), /200 OK/);
      assert.match(await inVm(other, get(addresses.six)), /200 OK/);
      await fixture.agent.nomad(["job", "stop", "-purge", other.job]);
    });

    it("neither packets from another's IPv6 address nor answers for one pass", async () => {
      const other = await runService({
        agent: fixture.agent,
        config: spoofer,
        group: groupNetwork('mode = "cni/dual"'),
      });
      assert.match(await inVm(other, `ping -6 -c 1 -W 5 ${peerAddressV6}`), / 0% packet loss/);
      // Duplicate address detection claims the address, then packets leave from it: the rules must stop both.
      await assertSpoofsAreStopped(other, "lga9fee602", `/run/netns/${other.id}`, [
        `ip -6 addr add fd98::66:66/128 dev eth0 && sleep 2; ping -6 -c 1 -W 1 -I fd98::66:66 ${peerAddressV6}`,
        `ip link set eth0 address 02:66:66:66:66:66 && ping -6 -c 1 -W 1 ${peerAddressV6}`,
      ]);
      await fixture.agent.nomad(["job", "stop", "-purge", other.job]);
    });

    it("CNI's check passes after a restart of the agent: the VM, its address and its service stay", async () => {
      const before = await machineOf(allocation);
      // Not killed: Nomad writes a network's state only once a minute and at its own end.
      await fixture.agent.interrupt();
      await fixture.agent.launch();
      await allocation.waitForStatus(["running"]);
      await waitForPassingCheck(allocation);
      // Nomad also shows the check's last result from before its restart.
      await allocation.waitForExec();
      assert.deepEqual(await cniCheck(allocation), []);
      assert.deepEqual(await machineOf(allocation), before);
      assert.match(await inVm(allocation, "ip addr show eth0"), new RegExp(`${addresses.four}/24`));
      await waitForPage(allocation);
    });

    it("the service goes with the job", async () => {
      await assertServiceGoesWith(allocation, "dual");
    });
  });

  describe("afterwards", () => {
    it("no interface, no table and no rule is left", () => assertNoNetworkIsLeft(fixture.agent));
  });
}
