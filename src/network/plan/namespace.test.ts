import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as v from "valibot";
import { openPolicy } from "../../../test/fakes/network-plans.ts";
import { PortClaimedError } from "../errors.ts";
import { planNamespace } from "./namespace.ts";
import { type NamespacePlan, networkPlanSchema } from "./network-plan.ts";

const facts = {
  device: "eth0",
  mtu: 1450,
  ipv4: { address: "172.26.64.2", prefixLength: 20 },
  ipv6: { address: "fd00::2", prefixLength: 64 },
  routes: ["0.0.0.0/0", "172.26.64.0/20", "::/0"],
};
const ports = [
  { label: "web", hostIp: "10.0.0.1", hostPort: 20_000, to: 8080 },
  { label: "admin", hostIp: "10.0.0.1", hostPort: 20_001, to: 0 },
  { label: "connect-proxy-x", hostIp: "10.0.0.1", hostPort: 20_002, to: -1 },
];
const plan = (taskName: string, named: string[], neighbours: NamespacePlan[] = []): NamespacePlan =>
  planNamespace({
    path: "/run/netns/a",
    facts,
    table: "litegix_test",
    taskName,
    allocId: "a",
    egress: openPolicy,
    hostAccess: [],
    hostNetworks: [],
    limits: { packets: 200_000, connections: 1_000 },
    ports,
    named,
    upstreamPorts: [9191],
    neighbours,
  });

describe("VMs in a group", () => {
  it("the only VM has the ports that no task names, except Connect's", () => {
    const only = plan("one", []);
    assert.deepEqual(only.unnamedPorts, [8080, 20_001]);
    assert.deepEqual(only.outsidePorts, [20_002, 9191]);
    const record = JSON.parse(JSON.stringify(only)) as NamespacePlan;
    assert.ok(v.is(networkPlanSchema, record));
    const { limits: _, ...withoutLimits } = record;
    assert.ok(v.is(networkPlanSchema, withoutLimits));
  });

  it("a VM that names its ports leaves the others to any program that listens", () => {
    const first = plan("one", ["web"]);
    assert.deepEqual(first.ports, [{ label: "web", guestPort: 8080 }]);
    assert.deepEqual(first.outsidePorts, [20_001, 20_002, 9191]);
    const second = plan("two", ["admin"], [first]);
    assert.equal(second.index, 1);
    assert.notEqual(second.tap, first.tap);
    assert.throws(() => plan("three", ["web"], [first, second]), PortClaimedError);
  });
});
