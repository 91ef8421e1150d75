import assert from "node:assert/strict";
import { test } from "node:test";
import { ConfigError } from "../../errors.ts";
import { parseTaskConfig } from "./task-config.ts";

const config = (more: Record<string, unknown>): Record<string, unknown> => ({ image: "busybox", ...more });

test("only the image is required", () => {
  const settings = parseTaskConfig({ image: "busybox", args: null, env: null });
  assert.equal(settings.image.reference, "busybox");
  assert.equal(settings.vcpuCount, undefined);
  assert.equal(settings.args, undefined);
  assert.deepEqual(settings.env, []);
});

test("args is a list, or one string split as a shell splits", () => {
  assert.deepEqual(parseTaskConfig(config({ args: "-c 'echo hello'" })).args, ["-c", "echo hello"]);
  assert.deepEqual(parseTaskConfig(config({ args: ["-c 'echo hello'", 5, true] })).args, [
    "-c 'echo hello'",
    "5",
    "true",
  ]);
});

test("env is a list, a map, or a block", () => {
  assert.deepEqual(parseTaskConfig(config({ env: ["A=1", "B=x=y"] })).env, ["A=1", "B=x=y"]);
  assert.deepEqual(parseTaskConfig(config({ env: { A: 1, B: "two" } })).env, ["A=1", "B=two"]);
  assert.deepEqual(parseTaskConfig(config({ env: [{ A: "1" }] })).env, ["A=1"]);
});

test("numbers may come as text; both spellings of the CPU count work", () => {
  assert.equal(parseTaskConfig(config({ vpu_count: "2", mem_size: 512n })).memSizeMib, 512);
  assert.equal(parseTaskConfig(config({ vcpu_count: 3 })).vcpuCount, 3);
});

test("the image: credentials and patience", () => {
  const { image } = parseTaskConfig(
    config({ image_pull_timeout: "1m30s", auth: { username: "u", password: "p", email: "e" } }),
  );
  assert.equal(image.pullTimeoutMs, 90_000);
  assert.deepEqual(image.credentials, { username: "u", password: "p" });
  assert.equal(parseTaskConfig(config({ auth: { username: "", password: "" } })).image.credentials, undefined);
});

for (const [name, bad, message] of [
  ["a password alone", { auth: { password: "secret" } }, /^config: auth.username = "": must be set/],
  ["a name alone", { auth: { username: "u" } }, /^config: auth.password: must be set/],
  ["no duration", { image_pull_timeout: "5 minutes" }, /^config: image_pull_timeout = "5 minutes": must be a duration/],
  ["no image", { image: null }, /^config: image: is required/],
  ["an empty image", { image: "" }, /^config: image = "": must not be empty/],
  ["an image that is a list", { image: ["a"] }, /^config: image = \["a"\]: must be a string/],
  ["0 CPUs", { vpu_count: 0 }, /^config: vpu_count = 0: must be a whole number of CPUs from 1 to 32/],
  ["half a CPU", { vpu_count: 1.5 }, /vpu_count = 1.5/],
  ["two CPU counts", { vpu_count: 1, vcpu_count: 2 }, /vcpu_count = 2: differs from vpu_count = 1/],
  ["CPUs in words", { vpu_count: "two" }, /vpu_count = "two"/],
  ["too little memory", { mem_size: 16 }, /^config: mem_size = 16: must be a whole number of MiB from 128/],
  ["memory true", { mem_size: true }, /mem_size = true/],
  ["args a number list of lists", { args: [["a"]] }, /args = \[\["a"\]\]: must be a list of strings/],
  ["args with an open quote", { args: "-c 'echo" }, /args = "-c 'echo": has a quote/],
  ["env without =", { env: ["A"] }, /env = "A": must be a list of "NAME=value"/],
  ["env with a list inside", { env: { A: [] } }, /env.A = \[\]: must be a string/],
  ["a relative work_dir", { work_dir: "tmp" }, /work_dir = "tmp": must be an absolute path/],
  ["force_pull a word", { force_pull: "maybe" }, /force_pull = "maybe": must be true or false/],
  ["NUL in an argument", { args: ["a\0b"] }, /must not hold a NUL/],
] as const) {
  test(`${name}: the message names key, value and rule`, () => {
    assert.throws(
      () => parseTaskConfig(config(bad)),
      (error: unknown) => error instanceof ConfigError && message.test(error.message),
    );
  });
}
