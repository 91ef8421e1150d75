import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { parseChallenges } from "./challenge.ts";

/** As pairs, which compare and read better than maps. */
function parsed(header: string): readonly (readonly [string, Readonly<Record<string, string>>])[] {
  return parseChallenges(header).map(({ scheme, parameters }) => [scheme, Object.fromEntries(parameters)]);
}

test("one bearer challenge, with a comma inside a quoted value", () => {
  const header =
    'Bearer realm="https://auth.example/token",service="registry.example",scope="repository:team/app:pull,push"';
  assert.deepEqual(parsed(header), [
    [
      "bearer",
      {
        realm: "https://auth.example/token",
        service: "registry.example",
        scope: "repository:team/app:pull,push",
      },
    ],
  ]);
});

test("a challenge without scope, and one without any parameter", () => {
  assert.deepEqual(parsed('Bearer realm="https://auth.example/token"'), [
    ["bearer", { realm: "https://auth.example/token" }],
  ]);
  assert.deepEqual(parsed("Negotiate"), [["negotiate", {}]]);
});

test("several challenges in one header, as fetch joins several headers", () => {
  assert.deepEqual(parsed('Negotiate, Basic realm="a, Bearer realm=b", charset="UTF-8", Bearer realm=token'), [
    ["negotiate", {}],
    ["basic", { realm: "a, Bearer realm=b", charset: "UTF-8" }],
    ["bearer", { realm: "token" }],
  ]);
});

test("scheme and names in any case, blanks around the equals sign, empty list elements, escapes", () => {
  assert.deepEqual(parsed(String.raw`, bEARER  Realm = "a\"b\\c" ,, SERVICE=x ,`), [
    ["bearer", { realm: String.raw`a"b\c`, service: "x" }],
  ]);
  assert.deepEqual(parsed('Basic realm=""'), [["basic", { realm: "" }]]);
});

test("a malformed part ends the list, and the parts before it count", () => {
  assert.deepEqual(parsed(""), []);
  assert.deepEqual(parsed('realm="x"'), []);
  assert.deepEqual(parsed('"Basic"'), []);
  assert.deepEqual(parsed("<html>"), []);
  assert.deepEqual(parsed('Bearer realm="https://auth.example'), [["bearer", {}]]);
  assert.deepEqual(parsed('Basic realm="x", Bearer realm=, service="y"'), [
    ["basic", { realm: "x" }],
    ["bearer", {}],
  ]);
});

test("a name twice: the last counts; names that objects have are names", () => {
  assert.equal(parseChallenges('Basic realm="a", realm="b"')[0]?.parameters.get("realm"), "b");
  assert.equal(parseChallenges('Basic __proto__="a"')[0]?.parameters.get("__proto__"), "a");
});

test("an overlong header is cut", () => {
  const [challenge, ...others] = parseChallenges(`Basic ${"a=b,".repeat(100_000)}c=d`);
  assert.deepEqual([...(challenge?.parameters ?? [])], [["a", "b"]]);
  assert.deepEqual(others, []);
  assert.deepEqual(parsed(`Basic realm="${"x".repeat(10_000)}"`), [["basic", {}]]);
});

test("property: any string is read without an exception", () => {
  const pieces = fc.constantFrom("Bearer", "basic", "realm", "=", '"', "\\", ",", " ", "\t", "x", "ü", "\0");
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string({ unit: "binary" }),
        fc.array(pieces).map((list) => list.join("")),
      ),
      (header) => {
        for (const { scheme, parameters } of parseChallenges(header)) {
          assert.equal(scheme, scheme.toLowerCase());
          assert.ok(scheme !== "" && !parameters.has(""));
        }
      },
    ),
  );
});

test("property: challenges written by the grammar come back", () => {
  const token = fc.stringMatching(/^[a-z0-9!#$%&'*+.^_`|~-]{1,10}$/);
  const challenges = fc.array(
    fc.tuple(token, fc.dictionary(token, fc.stringMatching(/^[\x20-\x7e]*$/), { noNullPrototype: true })),
  );
  fc.assert(
    fc.property(challenges, (list) => {
      const written = list.map(([scheme, parameters]) => {
        const quoted = Object.entries(parameters).map(
          ([name, value]) => `${name}="${value.replace(/[\\"]/g, String.raw`\$&`)}"`,
        );
        return `${scheme} ${quoted.join(", ")}`;
      });
      assert.deepEqual(parsed(written.join(", ")), list);
    }),
  );
});
