// The default network beside other software's firewalls, each in a namespace of the test's own.
import assert from "node:assert/strict";
import { mkdtempSync } from "node:fs";
import { rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { type Allocation, runService } from "./support/allocation.ts";
import { runSuccessfully } from "./support/command.ts";
import { Firewalld, skipFirewalld } from "./support/firewalld.ts";
import { agentAddress } from "./support/namespaces.ts";
import {
  assertNoNetworkIsLeft,
  forwardChain,
  groupNetwork,
  image,
  inVm,
  outside,
  peer,
  runInNamespaces,
  serving,
  useNetworkFixture,
  waitForAnswer,
  waitForPage,
  who,
} from "./support/network.ts";

runInNamespaces("VMs beside other software's firewalls", import.meta.filename);

if (!outside) {
  const firewalld = await Firewalld.create();
  /** The driver finds `iptables` here first. */
  const programs = mkdtempSync(join(tmpdir(), "lgfw-"));
  const fixture = useNetworkFixture({ env: { ...firewalld.env, PATH: `${programs}:${process.env["PATH"]}` } });
  after(async () => {
    await firewalld[Symbol.asyncDispose]();
    await rm(programs, { recursive: true });
  });

  const startVm = async (): Promise<Allocation> =>
    await runService({
      agent: fixture.agent,
      config: `${image}\nports = ["web"]\n${serving}`,
      group: groupNetwork(),
    });

  const assertReachesAndIsReached = async (allocation: Allocation): Promise<void> => {
    await waitForAnswer("the peer's answer", new RegExp(`from ${agentAddress}\nstatus 0`), () =>
      inVm(allocation, peer(who)),
    );
    await waitForPage(allocation);
  };

  for (const variant of ["nft", "legacy"] as const) {
    describe(`iptables (${variant}) that drops what it forwards, as docker leaves it`, () => {
      const iptables = async (...args: string[]): Promise<string> =>
        await runSuccessfully({ file: join(programs, "iptables"), args });
      let allocation: Allocation;
      before(async () => {
        await fixture.ready();
        await symlink(`/usr/sbin/xtables-${variant}-multi`, join(programs, "iptables"));
        await iptables("-P", "FORWARD", "DROP");
        allocation = await startVm();
      });
      after(async () => {
        await iptables("-P", "FORWARD", "ACCEPT");
        await rm(join(programs, "iptables"));
      });

      it("out and in", () => assertReachesAndIsReached(allocation));

      it("rules are back when it loads its own anew", async () => {
        await iptables("-F", "FORWARD");
        await waitForAnswer("two rules", /litegix[\s\S]*litegix/, () => iptables("-S", "FORWARD"));
        await assertReachesAndIsReached(allocation);
      });

      it("nothing is left of them with the last VM", async () => {
        await assertNoNetworkIsLeft(fixture.agent);
        assert.equal(await iptables("-S", "FORWARD"), "-P FORWARD DROP\n");
      });
    });
  }

  describe("a host without iptables", () => {
    it("out and in, and iptables is left alone", async () => {
      await symlink("/bin/false", join(programs, "iptables"));
      try {
        await assertReachesAndIsReached(await startVm());
        assert.doesNotMatch(await forwardChain(), /litegix/);
        await assertNoNetworkIsLeft(fixture.agent);
      } finally {
        await rm(join(programs, "iptables"));
      }
    });
  });

  describe("firewalld", { skip: skipFirewalld }, () => {
    const taps = "lg+";
    let allocation: Allocation;
    const zone = async (): Promise<string> => await firewalld.ask(`--get-zone-of-interface=${taps}`);

    before(async () => {
      await fixture.ready();
      await firewalld.start();
      allocation = await startVm();
    });

    it("out and in", async () => {
      assert.equal(await zone(), "trusted");
      await assertReachesAndIsReached(allocation);
    });

    it("after it loads its rules anew, and after it was started anew", async () => {
      await firewalld.ask("--reload");
      await assertReachesAndIsReached(allocation);
      await firewalld.stop();
      await firewalld.start();
      await assertReachesAndIsReached(allocation);
    });

    it("nothing is left in it with the last VM", async () => {
      await assertNoNetworkIsLeft(fixture.agent);
      assert.equal(await zone(), "no zone");
    });

    it("another zone that an operator put the interfaces into is kept", async () => {
      await firewalld.ask("--zone=internal", `--add-interface=${taps}`);
      await startVm();
      assert.equal(await zone(), "internal");
      await assertNoNetworkIsLeft(fixture.agent);
      assert.equal(await zone(), "internal");
    });
  });
}
