import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import * as v from "valibot";
import { EgressRuleError } from "../errors.ts";
import { egressRuleSchema, metadataFloor, parseEgressRule, resolverRules } from "./egress-policy.ts";

describe("metadata services", () => {
  const aboutOracle = (resolvers: string[]): unknown =>
    metadataFloor(resolvers).filter(({ network }) => network === "169.254.169.254/32");

  it("are refused, each with all its ports", () => {
    const whole = { version: 4, network: "169.254.169.254/32", protocol: "any" };
    assert.deepEqual(aboutOracle([]), [whole]);
    assert.deepEqual(aboutOracle(["10.0.0.2", "not an address"]), [whole]);
    for (const network of ["fd00:ec2::254/128", "fd20:ce::254/128", "168.63.129.16/32", "192.0.0.192/32"]) {
      assert.ok(metadataFloor([]).some((rule) => rule.network === network && rule.ports === undefined));
    }
  });

  it("keep DNS open if the VM's resolver has the same address", () => {
    const rest = { version: 4, network: "169.254.169.254/32", protocol: "any" };
    assert.deepEqual(aboutOracle(["169.254.169.254"]), [
      { ...rest, ports: [1, 52] },
      { ...rest, ports: [54, 65_535] },
    ]);
  });

  it("a resolver's rule opens port 53 alone", () => {
    assert.deepEqual(resolverRules(["192.0.2.7", "fe80::1%eth0"]), [
      { version: 4, network: "192.0.2.7/32", ports: [53, 53], protocol: "any" },
    ]);
  });
});

describe("egress rules", () => {
  it("have a network without host bits, a range of ports and a protocol", () => {
    const network = { version: 4, network: "10.1.0.0/16" };
    assert.deepEqual(parseEgressRule("10.1.2.3/16:5432/tcp"), { ...network, ports: [5432, 5432], protocol: "tcp" });
    assert.deepEqual(parseEgressRule("10.1.0.0/16:1-1023"), { ...network, ports: [1, 1023], protocol: "any" });
    assert.deepEqual(parseEgressRule("[fd00::/8]:53/udp"), {
      version: 6,
      network: "fd00::/8",
      ports: [53, 53],
      protocol: "udp",
    });
  });

  it("are refused with an example if they have another form, whatever the text is", () => {
    for (const bad of [
      "",
      "10.0.0.0/33",
      "10.0.0.1:0",
      "10.0.0.1:70000",
      "10.0.0.1:9-8",
      "10.0.0.1:80/sctp",
      "host:80",
      "[1.2.3.4",
      "1.2.3.4; drop",
    ]) {
      assert.throws(() => parseEgressRule(bad), EgressRuleError, bad);
    }
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom(..."0123456789.:/[]-abftcpud{};\n".split("")) }), (text) => {
        try {
          assert.ok(v.is(egressRuleSchema, parseEgressRule(text)));
        } catch (error) {
          assert.ok(error instanceof EgressRuleError);
        }
      }),
    );
  });
});
