// Networks of the real Firecracker in its jail, and its rate limiters, in namespaces that the test makes (as network.test.ts).
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { runService } from "./support/allocation.ts";
import { skipFirecracker } from "./support/environment.ts";
import { assertVmmIsApart } from "./support/machines.ts";
import { agentAddress, peerAddress } from "./support/namespaces.ts";
import {
  assertNoNetworkIsLeft,
  big,
  groupNetwork,
  image,
  inVm,
  outside,
  peer,
  runInNamespaces,
  serving,
  useNetworkFixture,
  waitForEcho,
  waitForPage,
  who,
} from "./support/network.ts";

runInNamespaces("Firecracker's networks", import.meta.filename, skipFirecracker);

if (!outside) {
  const fixture = useNetworkFixture();

  describe("in the jail", () => {
    for (const { mode, config } of [
      { mode: "", config: 'ports = ["web", "echo"]' },
      { mode: 'mode = "bridge"', config: "" },
    ]) {
      it(`${mode || "the default network"}: out and in`, async () => {
        const allocation = await runService({
          agent: fixture.agent,
          config: `${image}\n${config}\n${serving}`,
          group: groupNetwork(mode),
        });
        await assertVmmIsApart(allocation);
        assert.match(await inVm(allocation, peer(who)), new RegExp(`from ${agentAddress}\nstatus 0`));
        await waitForPage(allocation);
        await waitForEcho(allocation);
        await fixture.agent.nomad(["job", "stop", "-purge", allocation.job]);
      });
    }
  });

  describe("rate limiters", () => {
    /** Seconds until the VM has sent a megabyte to the peer and has it back. */
    const echoTime = async (limiter: string): Promise<number> => {
      const allocation = await runService({
        agent: fixture.agent,
        config: `${image}\ncommand = "sleep"\nargs = ["3600"]\n${limiter}`,
      });
      const start = performance.now();
      assert.equal(await inVm(allocation, `head -c 1048576 /dev/zero | nc ${peerAddress} ${big} | wc -c`), "1048576");
      const seconds = (performance.now() - start) / 1000;
      await fixture.agent.nomad(["job", "stop", "-purge", allocation.job]);
      return seconds;
    };

    it("hold each direction to the job's rate", async (t) => {
      // 48 KiB a second, and a burst of as much: a megabyte takes 20 s or more, however fast the host is.
      const limit = `{
        bandwidth {
          size        = 49152
          refill_time = 1000
        }
      }`;
      const free = await echoTime("");
      for (const direction of ["rx", "tx"]) {
        const seconds = await echoTime(`${direction}_rate_limiter ${limit}`);
        t.diagnostic(`${direction}_rate_limiter: ${seconds.toFixed(1)} s, without: ${free.toFixed(1)} s`);
        assert.ok(seconds > 20 && seconds > free, `${direction}: ${seconds} s; without: ${free} s`);
      }
    });
  });

  describe("afterwards", () => {
    it("no interface, no table and no rule is left", () => assertNoNetworkIsLeft(fixture.agent));
  });
}
