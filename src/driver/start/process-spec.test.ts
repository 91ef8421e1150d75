import assert from "node:assert/strict";
import { test } from "node:test";
import { parseTaskConfig } from "../config/task/task-config.ts";
import { processSpec } from "./process-spec.ts";

const image = {
  entrypoint: ["/entry"],
  cmd: ["default", "args"],
  env: ["PATH=/bin", "A=image", "B=image", "C=image"],
  user: "app",
  workingDir: "/srv",
};
const spec = (
  config: Record<string, unknown>,
  overrides: Partial<typeof image> = {},
  user = "",
): ReturnType<typeof processSpec> =>
  processSpec({
    image: { ...image, ...overrides },
    settings: parseTaskConfig({ image: "x", ...config }),
    nomadEnv: { B: "nomad", C: "nomad" },
    user,
  });

for (const [name, config, overrides, argv] of [
  ["nothing: the image's own", {}, {}, ["/entry", "default", "args"]],
  ["command replaces CMD", { command: "run", args: ["x"] }, {}, ["/entry", "run", "x"]],
  ["args alone replace CMD", { args: ["x"] }, {}, ["/entry", "x"]],
  ["an entrypoint drops the image's CMD", { entrypoint: ["/mine"] }, {}, ["/mine"]],
  ["an entrypoint keeps the task's args", { entrypoint: "/mine -v", args: ["x"] }, {}, ["/mine", "-v", "x"]],
  ["no entrypoint in the image", { command: "sh", args: "-c 'echo hi'" }, { entrypoint: [] }, ["sh", "-c", "echo hi"]],
] as const) {
  test(`argv: ${name}`, () => assert.deepEqual(spec(config, overrides as Partial<typeof image>).argv, argv));
}

test("env: image < Nomad < task", () => {
  assert.deepEqual(spec({ env: { C: "task" } }).env, ["PATH=/bin", "A=image", "B=nomad", "C=task"]);
});

test("user and work_dir: the job's before the image's", () => {
  assert.deepEqual([spec({}).user, spec({}).workDir], ["app", "/srv"]);
  assert.deepEqual([spec({}, {}, "root").user, spec({ work_dir: "/tmp" }).workDir], ["root", "/tmp"]);
});

test("no program to run is an error that names the cure", () => {
  assert.throws(() => spec({}, { entrypoint: [], cmd: [] }), /config: command: is required: the image has neither/);
});
