import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { InvalidReferenceError } from "./errors.ts";
import { formatReference, parseReference } from "./reference.ts";

const fixed = `sha256:${"a1".repeat(32)}`;

test("completes names as docker does", () => {
  const cases: Record<string, string> = {
    busybox: "docker.io/library/busybox:latest",
    "busybox:1.36": "docker.io/library/busybox:1.36",
    "docker.io/busybox": "docker.io/library/busybox:latest",
    "index.docker.io/busybox": "docker.io/library/busybox:latest",
    "me/app": "docker.io/me/app:latest",
    "localhost/app": "localhost/app:latest",
    "localhost:5000/app:v1": "localhost:5000/app:v1",
    "registry.example/a/b/c": "registry.example/a/b/c:latest",
    "host:5000/a__b--c.d": "host:5000/a__b--c.d:latest",
    "[::1]:5000/app": "[::1]:5000/app:latest",
    [`busybox@${fixed}`]: `docker.io/library/busybox@${fixed}`,
    [`busybox:1@${fixed}`]: `docker.io/library/busybox:1@${fixed}`,
  };
  for (const [given, canonical] of Object.entries(cases)) {
    assert.equal(formatReference(parseReference(given)), canonical);
  }
});

test("says what is wrong", () => {
  const cases: Record<string, RegExp> = {
    "": /it is empty/,
    "https://registry.example/app": /URL scheme/,
    Busybox: /lower case/,
    "busybox:": /the tag/,
    "busybox:a b": /the tag/,
    "busybox@sha256:12": /the digest/,
    "busybox@md5:0123": /the digest/,
    "-bad.example/app": /host name/,
    "registry.example/": /no repository name/,
    "/app": /host name/,
    "a//b": /repository name is malformed/,
    "a/../b": /repository name is malformed/,
    "a\nb": /"a\\nb" is not.*repository name is malformed/,
    [`${"a/".repeat(130)}a`]: /longer than 255/,
  };
  for (const [given, message] of Object.entries(cases)) {
    assert.throws(
      () => parseReference(given),
      (error) => error instanceof InvalidReferenceError && message.test(error.message),
      given,
    );
  }
});

const alnum = fc.stringMatching(/^[a-z0-9]{1,8}$/);
const part = fc.tuple(alnum, fc.constantFrom("", ".", "_", "__", "-", "---"), alnum).map((pieces) => pieces.join(""));
const host = fc.constantFrom(
  "docker.io",
  "registry.example",
  "localhost",
  "localhost:5000",
  "10.0.0.1:80",
  "ghcr.example:443",
);
const tag = fc.option(fc.stringMatching(/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}$/), { nil: undefined });
const digest = fc.option(fc.stringMatching(/^sha256:[0-9a-f]{64}$/), { nil: undefined });

test("every well-formed reference survives formatting and parsing", () => {
  fc.assert(
    fc.property(
      host,
      fc.array(part, { minLength: 2, maxLength: 4 }),
      tag,
      digest,
      (name, parts, someTag, someDigest) => {
        const reference = {
          host: name,
          repository: parts.join("/"),
          tag: someTag ?? (someDigest === undefined ? "latest" : undefined),
          digest: someDigest,
        };
        assert.deepEqual(parseReference(formatReference(reference)), reference);
      },
    ),
  );
});

test("any other text is refused with the typed error, or parses to a fixed point", () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.stringMatching(/^[a-zA-Z0-9:/@._-]{0,60}$/)), (text) => {
      try {
        const parsed = parseReference(text);
        assert.deepEqual(parseReference(formatReference(parsed)), parsed);
        assert.ok(!parsed.repository.split("/").includes(".."));
      } catch (error) {
        assert.ok(error instanceof InvalidReferenceError);
      }
    }),
    { numRuns: 2_000 },
  );
});
