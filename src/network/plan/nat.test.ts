import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { namespacePlan, natPlan, openPolicy } from "../../../test/fakes/network-plans.ts";
import { parseNetwork } from "../../system/ip.ts";
import { PortClaimedError } from "../errors.ts";
import { planNat } from "./nat.ts";
import { type NatPlan, publishedPorts } from "./network-plan.ts";

const published = (hostIp: string, hostPort: number, label = "web"): NatPlan["ports"][number] => ({
  label,
  hostIp,
  hostPort,
  guestPort: 8080,
});

describe("the ports of a VM in the default network", () => {
  it("are the host's at one address or at all", () => {
    const plan = natPlan({
      ports: [published("192.0.2.7", 80), published("", 80, "all"), published("192.0.2.8", 53, "dns")],
    });
    assert.deepEqual(publishedPorts(plan), [
      { address: "0.0.0.0", port: 80 },
      { address: "192.0.2.8", port: 53 },
    ]);
    assert.deepEqual(publishedPorts(namespacePlan({ ports: [{ label: "web", guestPort: 80 }] })), []);
  });

  it("are refused if another VM has one of them, at the same address or at all", () => {
    const subnet = parseNetwork("10.207.0.0/16");
    assert.ok(subnet !== undefined);
    const plan = (hostIp: string, theirs: string): NatPlan =>
      planNat({
        subnet,
        mtu: 1500,
        table: "litegix_test",
        taskName: "other",
        allocId: "b",
        egress: openPolicy,
        hostAccess: [],
        limits: {},
        forwardTo: [],
        ports: [{ label: "web", hostIp, hostPort: 80, to: 8080 }],
        named: ["web"],
        neighbours: [natPlan({ ports: [published(theirs, 80)] })],
        taps: new Set(),
      });
    for (const [own, theirs] of [
      ["192.0.2.7", "192.0.2.7"],
      ["0.0.0.0", "192.0.2.7"],
      ["192.0.2.7", ""],
    ] as const) {
      assert.throws(() => plan(own, theirs), PortClaimedError);
    }
    assert.equal(plan("192.0.2.7", "192.0.2.8").ports.length, 1);
  });
});
