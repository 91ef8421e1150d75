import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { sampleRecord } from "../../test/fakes/sample-record.ts";
import { encodeLabels } from "../driver/task/labels.ts";
import { runInspect } from "./inspect.ts";

async function hostWith(context: TestContext, ids: readonly string[]) {
  const base = await mkdtemp(join(tmpdir(), "litegix-inspect-"));
  context.after(() => rm(base, { recursive: true }));
  for (const id of ids) {
    const directory = join(base, "vms", id);
    await mkdir(directory, { recursive: true });
    const task = { allocId: `alloc-${id}`, taskId: `alloc-${id}/main/1`, taskName: "main" };
    const labels = encodeLabels({ ...task, stopSignal: "", startedAt: new Date() });
    await writeFile(join(directory, "machine.json"), JSON.stringify({ ...sampleRecord, id, labels }));
  }
  const written = { stdout: "", stderr: "" };
  for (const stream of ["stdout", "stderr"] as const) {
    context.mock.method(process[stream], "write", (text: string) => {
      written[stream] += text;
      return true;
    });
  }
  const inspect = async (wanted?: string, json = false) => {
    Object.assign(written, { stdout: "", stderr: "" });
    const status = await runInspect(wanted, { rootfsBasePath: base, json });
    return { status, ...written };
  };
  return { inspect, base };
}

test("the beginning of a VM's or its allocation's id finds it; without one all are shown", async (context) => {
  const { inspect, base } = await hostWith(context, ["aaaa0000", "bbbb0000"]);
  for (const wanted of ["bbbb", "alloc-bbbb"]) {
    const { status, stdout } = await inspect(wanted, true);
    const [vm] = JSON.parse(stdout) as Record<string, string>[];
    assert.equal(status, 0);
    assert.deepEqual(
      { vm: vm?.["vm"], task: vm?.["task"], network: vm?.["network"], console: vm?.["console"] },
      { vm: "bbbb0000", task: "main", network: "none", console: join(base, "vms/bbbb0000/vmm.log") },
    );
  }
  const { stdout } = await inspect();
  assert.match(stdout, /^vm +aaaa0000\nvmm +firecracker 1\.16\.1\n[\s\S]*\n\nvm +bbbb0000\n/);
});

test("an unknown id is an error that lists the VMs", async (context) => {
  const { inspect, base } = await hostWith(context, ["aaaa0000"]);
  const { status, stdout, stderr } = await inspect("cccc");
  assert.deepEqual(
    { status, stdout, stderr },
    { status: 1, stdout: "", stderr: `no VM of "cccc" in ${join(base, "vms")}: there are aaaa0000\n` },
  );
});
