import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { addressBytes, ipv4FromNumber, ipv4ToNumber, networksOverlap, networkText, parseNetwork } from "./ip.ts";

const zeros = (length: number): number[] => Array.from({ length }, () => 0);

const parsed = (text: string) => {
  const network = parseNetwork(text);
  assert.ok(network, text);
  return network;
};

describe("IP addresses", () => {
  it("become bytes", () => {
    assert.deepEqual([...addressBytes("10.1.2.255")], [10, 1, 2, 255]);
    assert.deepEqual([...addressBytes("fe80::1")], [0xfe, 0x80, ...zeros(13), 1]);
    assert.deepEqual([...addressBytes("::ffff:1.2.3.4")].slice(10), [0xff, 0xff, 1, 2, 3, 4]);
    assert.deepEqual([...addressBytes("::1.2.3.4")].slice(10), [0, 0, 1, 2, 3, 4]);
    assert.deepEqual([...addressBytes("::")], zeros(16));
  });

  it("IPv4 and numbers are one", () => {
    fc.assert(fc.property(fc.ipV4(), (address) => ipv4FromNumber(ipv4ToNumber(address)) === address));
  });

  it("a network's text stands for the same bytes", () => {
    fc.assert(
      fc.property(fc.oneof(fc.ipV4(), fc.ipV6()), (address) => {
        assert.deepEqual(addressBytes(parsed(address).address), addressBytes(address));
      }),
    );
  });

  it("bits below the prefix are cleared", () => {
    assert.equal(networkText(parsed("10.1.2.3/12")), "10.0.0.0/12");
    assert.equal(networkText(parsed("fd00:1:2::1/32")), "fd00:1::/32");
    assert.equal(networkText(parsed("0:0:1:0:0:2:0:0")), "::1:0:0:2:0:0/128");
    assert.equal(networkText(parsed("1.2.3.4")), "1.2.3.4/32");
    assert.equal(networkText(parsed("0.0.0.0/0")), "0.0.0.0/0");
  });

  it("a text that is not a network is refused", () => {
    for (const text of [
      "",
      "10.0.0.0/33",
      "10.0.0/8",
      "::/129",
      "a/8",
      "1.2.3.4/",
      "1.2.3.4/8/9",
      "fe80::1%eth0",
      "1.2.3.4/-1",
    ]) {
      assert.equal(parseNetwork(text), undefined, text);
    }
    fc.assert(fc.property(fc.string(), (text) => parseNetwork(text) === undefined || !/[^0-9a-fA-F.:/]/.test(text)));
  });

  it("overlap", () => {
    assert.ok(networksOverlap(parsed("10.0.0.0/8"), parsed("10.207.0.0/16")));
    assert.ok(networksOverlap(parsed("10.207.0.0/16"), parsed("0.0.0.0/0")));
    assert.ok(!networksOverlap(parsed("10.206.0.0/16"), parsed("10.207.0.0/16")));
    assert.ok(!networksOverlap(parsed("::/0"), parsed("10.207.0.0/16")));
  });
});
