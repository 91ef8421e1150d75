import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { namespacePlan, natPlan } from "../../test/fakes/network-plans.ts";
import { guestInterface } from "./guest-interface.ts";

describe("the guest's interface", () => {
  it("has the VM's own address and one route in the default network", () => {
    const guest = guestInterface(natPlan());
    assert.deepEqual([...guest.mac], [2, 0x4c, 10, 207, 31, 6]);
    assert.deepEqual(
      guest.addresses.map(({ address, onLink }) => [[...address], onLink]),
      [[[10, 207, 31, 6], true]],
    );
    assert.deepEqual(
      guest.routes.map(({ prefixLength, gateway }) => [prefixLength, [...gateway]]),
      [[0, [10, 207, 31, 5]]],
    );
  });

  it("has the allocation's address first in a group, and the allocation's routes by the gateway", () => {
    const guest = guestInterface(
      namespacePlan({
        mtu: 1450,
        ipv6: { address: "fd00::2", prefixLength: 64 },
        routes: ["0.0.0.0/0", "172.26.64.0/20", "::/0"],
        outsidePorts: [20_002],
      }),
    );
    assert.deepEqual([...(guest.addresses[0]?.address ?? [])], [172, 26, 64, 2]);
    assert.equal(guest.addresses[0]?.onLink, false);
    assert.equal(guest.addresses.length, 3);
    // The last is to the group's other VMs.
    assert.equal(guest.routes.length, 4);
    assert.equal(guest.mtu, 1450);
    assert.deepEqual(guest.outsidePorts?.ports, [20_002]);
  });
});
