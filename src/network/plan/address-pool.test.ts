import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { parseNetwork } from "../../system/ip.ts";
import { AddressesExhaustedError } from "../errors.ts";
import { chooseLease, isTapName, leaseOf } from "./address-pool.ts";

const subnet = parseNetwork("10.207.0.0/28");
assert.ok(subnet);

describe("addresses", () => {
  it("gives each VM a /30, a TAP named after the address, and MACs that contain it", () => {
    const lease = leaseOf("10.207.0.6");
    assert.deepEqual(lease, {
      gateway: "10.207.0.5",
      address: "10.207.0.6",
      tap: "lg0acf0006",
      tapMac: "06:4c:0a:cf:00:06",
      guestMac: "02:4c:0a:cf:00:06",
    });
    assert.ok(isTapName(lease.tap));
  });

  it("gives out each address of a subnet once, then says that none is left", () => {
    fc.assert(
      fc.property(fc.infiniteStream(fc.double({ min: 0, max: 0.999, noNaN: true })), (stream) => {
        const taken = new Set<string>();
        const choose = () =>
          chooseLease({ subnet, isTaken: ({ tap }) => taken.has(tap), random: () => stream.next().value ?? 0 });
        for (let count = 0; count < 4; count++) {
          const { tap } = choose();
          assert.ok(!taken.has(tap));
          taken.add(tap);
        }
        assert.throws(choose, AddressesExhaustedError);
      }),
    );
  });
});
