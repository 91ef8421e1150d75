import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { it } from "node:test";
import { lastOutput } from "./log-tail.ts";

it("the console's last lines are not lost among the VMM's, and both are bounded", async () => {
  const directory = await mkdtemp(join(tmpdir(), "tail-"));
  const path = join(directory, "vmm.log");
  const vmm = "2026-11-24T17:11:30.270442840 [f5ca27fd:main] Killing vCPU threads\n".repeat(50);
  await writeFile(path, `${"x".repeat(5000)}\n[  0.1] Kernel panic - not syncing: \u001b[31mbad\r\n${vmm}`);
  const output = await lastOutput(path);
  assert.match(output, /x \| \[ {2}0\.1\] Kernel panic - not syncing: +\[31mbad; VMM log: .*Killing vCPU threads$/);
  assert.ok(output.length < 700);
  assert.equal(await lastOutput(join(directory, "none")), "");

  const farewell = ["Killing vCPU threads", "RunWithApiError error: MicroVM stopped with an error: GenericError"];
  const said = ["vCPU 0: the reason", ...farewell, "Firecracker exiting with error. exit_code=1"];
  await writeFile(path, said.map((line) => `2026-11-27T20:06:13.720002903 [348cb714:main] ${line}\n`).join(""));
  assert.equal(await lastOutput(path), `VMM log: ${said.join(" | ")}`);
  await rm(directory, { recursive: true });
});
