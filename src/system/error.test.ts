import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { DriverError, driverError, printable, reasonOf } from "./error.ts";

class NoDiskError extends driverError(
  "no_disk",
  (facts: { path: string; size?: number }) => `no disk at ${facts.path}`,
) {}
class GoneError extends driverError("gone", () => "it is gone") {}
class ForwardedError extends DriverError {}

describe("an error of the driver", () => {
  it("has its code, its facts, its cause and a name; the code ends the message", () => {
    const cause = new Error("ENOENT");
    const error = new NoDiskError({ path: "/dev/x", cause });
    assert.ok(error instanceof DriverError && error instanceof Error);
    assert.deepEqual([error.code, error.name, error.path, error.cause], ["no_disk", "NoDiskError", "/dev/x", cause]);
    assert.equal(error.message, "no disk at /dev/x (no_disk)");
    assert.ok(!Object.keys(error).includes("cause"));
    assert.equal(new GoneError().message, "it is gone (gone)");
    assert.ok(!("cause" in new GoneError()));
  });

  it("names its code once, and not in another error's message", () => {
    assert.equal(new ForwardedError("gone", new GoneError().message).message, "it is gone (gone)");
    assert.equal(new ForwardedError("gone", "it is (gone); last output: x").message, "it is (gone); last output: x");
    assert.equal(reasonOf(new NoDiskError({ path: "a" })), "no disk at a");
    assert.equal(reasonOf(new Error("plain")), "plain");
    assert.equal(reasonOf("text"), "text");
  });

  it("is one printable line, whatever its facts are", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (path) => {
        assert.doesNotMatch(new NoDiskError({ path }).message, /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/u);
      }),
    );
    assert.equal(printable(" a\u0000\u001b[31mb\r\n  c\u202Ed\u2028e\n"), "a [31mb; c d; e");
    assert.equal(printable("x".repeat(1000)).length, 300);
    assert.equal(printable("ärger", 2), "är");
  });
});
