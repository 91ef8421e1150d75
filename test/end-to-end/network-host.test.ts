// The host's own networks, and many networks at once, in a namespace of the test's own; no VM is started.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempDisposable, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it, type TestContext } from "node:test";
import { NetworkSetupError, PortClaimedError, TapTakenError } from "../../src/network/errors.ts";
import { inspectNetwork } from "../../src/network/inspect/inspect-network.ts";
import { bringInterfaceHome, makeInterface, Networks } from "../../src/network/network.ts";
import { readTaps } from "../../src/network/plan/address-pool.ts";
import type { NetworkPlan } from "../../src/network/plan/network-plan.ts";
import { networkText, parseNetwork } from "../../src/system/ip.ts";
import { runSuccessfully } from "./support/command.ts";
import { agentInterface } from "./support/namespaces.ts";
import { outside, runInNamespaces } from "./support/network.ts";
import { networkRequest } from "./support/network-request.ts";
import { nft } from "./support/packet-rules.ts";

runInNamespaces("the host's side of networks", import.meta.filename);

if (!outside) {
  const firstPort = 22_000;
  /** Networks as starts of VMs make them, without the VMs. */
  const prepare = async () => {
    const host = await inspectNetwork({ subnet: undefined });
    const plans: NetworkPlan[] = [];
    const networks = new Networks({ plans: async () => plans });
    const start = async (vm: number): Promise<NetworkPlan> => {
      const request = networkRequest({ allocId: `${vm}`, hostPort: firstPort + vm });
      using reserved = await networks.reserve({ request, host, basePath: "/networks" });
      const { plan } = reserved;
      assert.ok(plan !== undefined);
      plans.push(plan);
      await makeInterface({ plan });
      await networks.open({ plan });
      return plan;
    };
    return { plans, networks, start };
  };

  describe("what the host has", () => {
    const candidates = ["10.207.0.0/16", "10.83.0.0/16", "10.149.0.0/16", "100.117.0.0/16"];
    const route = async (change: "add" | "del", to: string): Promise<void> => {
      await runSuccessfully({ file: "ip", args: ["route", change, to, "dev", agentInterface] });
    };

    it("a subnet is taken that no route of the host overlaps; if each overlaps, the error says so", async () => {
      const seen: string[] = [];
      try {
        for (const candidate of candidates) {
          const { nat } = await inspectNetwork({ subnet: undefined });
          seen.push(nat.usable ? networkText(nat.subnet) : nat.reason);
          await route("add", candidate);
        }
        assert.deepEqual(seen, candidates);
        const { nat } = await inspectNetwork({ subnet: undefined });
        assert.ok(!nat.usable && /each subnet .* overlaps .*set subnet in the plugin's network block/.test(nat.reason));
        const chosen = await inspectNetwork({ subnet: parseNetwork("10.83.4.0/24") });
        assert.ok(!chosen.nat.usable);
        assert.match(chosen.nat.reason, /^10\.83\.4\.0\/24 overlaps with the host's route to 10\.83\.0\.0\/16 \(up0\)/);
      } finally {
        for (const candidate of candidates.slice(0, seen.length)) await route("del", candidate);
      }
    });

    it("CNI plugins that are missing are named, with where they were looked for", async () => {
      assert.equal(
        (await inspectNetwork({ subnet: undefined, cniDirectories: ["/usr/lib/cni"] })).bridgeLack,
        undefined,
      );
      await using some = await mkdtempDisposable(join(tmpdir(), "litegix-cni-"));
      for (const name of ["loopback", "bridge", "host-local", "firewall"]) await writeFile(join(some.path, name), "");
      const { bridgeLack, group } = await inspectNetwork({
        subnet: undefined,
        cniDirectories: ["/nowhere", some.path],
      });
      assert.deepEqual(group, { usable: true });
      assert.match(bridgeLack ?? "", /no portmap in \/nowhere, .*install them .*containernetworking-plugins/);
    });

    it("a program that is missing is named, with the package that has it", async () => {
      const path = process.env["PATH"];
      try {
        process.env["PATH"] = "/nonexistent";
        const { nat, group } = await inspectNetwork({ subnet: undefined });
        assert.deepEqual(nat, { usable: false, reason: "ip can't be run: install Debian's iproute2" });
        assert.deepEqual(group, nat);
      } finally {
        process.env["PATH"] = path;
      }
    });
  });

  describe("what can't be reserved", () => {
    it("a port that another task has, and an address if none is left: each error names a cure", async () => {
      const host = await inspectNetwork({ subnet: parseNetwork("10.83.4.0/29") });
      const plans: NetworkPlan[] = [];
      const few = new Networks({ plans: async () => plans });
      const reserve = async (vm: number, hostPort: number): Promise<void> => {
        const request = networkRequest({ allocId: `${vm}`, hostPort });
        using reserved = await few.reserve({ request, host, basePath: "/few" });
        assert.ok(reserved.plan !== undefined);
        plans.push(reserved.plan);
      };
      await reserve(0, 23_000);
      await assert.rejects(reserve(1, 23_000), PortClaimedError);
      await reserve(1, 23_001);
      await assert.rejects(
        reserve(2, 23_002),
        /no address is left in 10\.83\.4\.0\/29: stop VMs, or give .* a larger subnet/,
      );
    });
  });

  describe("an interface that a VMM opens in its own namespace", () => {
    /** A process with a network namespace of its own, and a plan for its interface, which it has. */
    const away = async (context: TestContext) => {
      const host = await inspectNetwork({ subnet: undefined });
      const networks = new Networks({ plans: async () => [] });
      using reserved = await networks.reserve({
        request: networkRequest({ allocId: "0", hostPort: firstPort }),
        host,
        basePath: "/away",
      });
      const { plan } = reserved;
      assert.ok(plan !== undefined);
      const vmm = spawn("unshare", ["--net", "sh", "-c", "echo; exec sleep 600"], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      context.after(() => vmm.kill("SIGKILL"));
      await once(vmm.stdout, "data");
      const place = `/proc/${vmm.pid}/ns/net`;
      await runSuccessfully({
        file: "nsenter",
        args: [`--net=${place}`, "ip", "tuntap", "add", "dev", plan.tap, "mode", "tap"],
      });
      assert.ok(!(await readTaps()).has(plan.tap));
      return { plan, networks, vmm, place };
    };
    const ip = async (...args: string[]): Promise<void> => {
      await runSuccessfully({ file: "ip", args });
    };

    it("comes home, where its rules are added", async (context) => {
      const { plan, networks, place } = await away(context);
      await bringInterfaceHome({ plan, away: place });
      await networks.open({ plan });
      assert.ok((await readTaps()).has(plan.tap));
      await networks.detach(plan);
      assert.ok(!(await readTaps()).has(plan.tap));
    });

    it("does not take the place of another driver's", async (context) => {
      const { plan, place } = await away(context);
      await ip("tuntap", "add", "dev", plan.tap, "mode", "tap", "user", "65534");
      await assert.rejects(bringInterfaceHome({ plan, away: place }), TapTakenError);
      assert.match(
        await runSuccessfully({ file: "ip", args: ["-d", "link", "show", plan.tap] }),
        /user nobody|user 65534/,
      );
      await ip("link", "delete", plan.tap);
    });

    it("goes with the VMM", async (context) => {
      const { plan, vmm, place } = await away(context);
      vmm.kill("SIGKILL");
      await once(vmm, "exit");
      await assert.rejects(bringInterfaceHome({ plan, away: place }), NetworkSetupError);
      assert.ok(!(await readTaps()).has(plan.tap));
    });
  });

  describe("rules that other software removed", () => {
    it("come back for each VM, although a VM started since has made the tables anew", async () => {
      const { plans, networks, start } = await prepare();
      /** A VM's rules, without what differs between VMs and what depends on its place among them. */
      const rulesOf = async ({ tap, address, guestMac }: NetworkPlan, vm: number): Promise<string[]> =>
        (await nft("/proc/self/ns/net", "--stateless", "list", "ruleset"))
          .split("\n")
          .filter((line) => [tap, address, guestMac].some((word) => line.includes(word)))
          .map((line) =>
            line
              .replaceAll(tap, "tap")
              .replaceAll(address, "address")
              .replaceAll(guestMac, "mac")
              .replace(`${firstPort + vm}`, "port")
              .replace(/^\s*(elements = \{ )?/, "")
              .replace(/(,| \})$/, "")
              // Other VMs' addresses in the same line.
              .replace(/^(10\.207\.[\d.]+, )*address(, 10\.207\.[\d.]+)*$/, "address"),
          )
          .toSorted();
      await start(0);
      await start(1);
      await nft("/proc/self/ns/net", "flush", "ruleset");
      await start(2);
      const restored = await networks.restore({});
      assert.deepEqual(restored, { plans: plans.slice(0, 2), failures: [] });
      assert.deepEqual(await networks.restore({}), { plans: [], failures: [] });
      const [first, second, fresh] = await Promise.all(plans.map(rulesOf));
      assert.ok(fresh !== undefined && fresh.length > 10);
      assert.deepEqual([first, second], [fresh, fresh]);
      for (const plan of plans.splice(0)) await networks.detach(plan);
    });
  });

  describe("many at once", () => {
    it("fifty networks are made at once, each with an address of its own, and gone at once", async () => {
      const { plans, networks, start } = await prepare();
      const before = await readTaps();
      const made = await Promise.all(Array.from({ length: 50 }, (_, vm) => start(vm)));
      assert.equal(new Set(made.map(({ tap }) => tap)).size, 50);
      assert.equal((await readTaps()).size, before.size + 50);
      const ruleset = await nft("/proc/self/ns/net", "list", "ruleset");
      for (const { tap } of made) assert.ok(ruleset.includes(tap), tap);
      plans.length = 0;
      await Promise.all(made.map((plan) => networks.detach(plan)));
      assert.deepEqual(await readTaps(), before);
      const left = await nft("/proc/self/ns/net", "list", "ruleset");
      for (const { tap } of made) assert.ok(!left.includes(tap), tap);
    });
  });
}
