// Bulk data: through an exec session and back unchanged, and a task's output while nobody reads it. LITEGIX_E2E_EXEC_MB: how much
// goes through the session (default 24, for emulated guests; 256 is what the product promises).
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { execInGuest } from "../../src/guest/exec-session.ts";
import { GuestClient } from "../../src/guest/guest-client.ts";
import { type Allocation, startJob } from "./support/allocation.ts";
import { skipVms } from "./support/environment.ts";
import { execCopy } from "./support/exec-copy.ts";
import { Fixture } from "./support/fixture.ts";
import { logmonPids, written } from "./support/logmon.ts";
import { machineOf } from "./support/machines.ts";
import { waitFor } from "./support/wait.ts";

const execBytes = Number(process.env["LITEGIX_E2E_EXEC_MB"] ?? "24") * 1_000_000;
const lineBytes = 1024;
/** The guest's buffer and the FIFO, less a frame that did not fit any more and the FIFO's pages that are not full. */
const fullBytes = (1024 + 256 - 128) * 1024;

const fixture = Fixture.use();

async function linesOfTask(allocation: Allocation): Promise<number> {
  const { stdout } = await allocation.exec(["/bin/cat", "/tmp/lines"]);
  return Number(stdout);
}

describe("bulk data", { skip: skipVms }, () => {
  let allocation: Allocation;

  it("is kept in full buffers while logmon stands still, the task waits, and no byte is lost", async () => {
    // 1 KiB a line, numbered; the second file says how many the task has got rid of.
    const script = [
      "pad=$(head -c 1014 /dev/zero | tr '\\0' .); i=0",
      'while [ ! -e /tmp/stop ]; do i=$((i + 1)); printf "%08d %s\\n" $i "$pad"; echo $i >/tmp/lines; done',
      "trap 'exit 0' TERM; while :; do sleep 3600 & wait; done",
    ].join("\n");
    allocation = await startJob({
      agent: fixture.agent,
      type: "service",
      config: `image = "busybox:latest"\ncommand = "/bin/sh"\nargs = ["-c", ${JSON.stringify(script)}]`,
    });
    await allocation.waitForStatus(["running"]);
    const logged = async (): Promise<number> => (await written(allocation, "stdout")).length;
    await waitFor({
      what: "the log to begin",
      timeoutMs: 60_000,
      attempt: async () => (await logged()) > lineBytes || undefined,
    });
    const pids = await logmonPids(allocation);
    assert.ok(pids.length > 0, "logmon was found");
    for (const pid of pids) process.kill(pid, "SIGSTOP");
    let held = 0;
    try {
      let last = -1;
      await waitFor({
        what: "the task to wait in its write",
        timeoutMs: 60_000,
        intervalMs: 1_000,
        attempt: async () => {
          const lines = await linesOfTask(allocation);
          const stands = lines === last;
          last = lines;
          held = last * lineBytes - (await logged());
          // On a busy machine the task may stand for a second before all is full.
          return (stands && held >= fullBytes) || undefined;
        },
        seen: () => `${last} lines, ${held} bytes held between the task and logmon`,
      });
    } finally {
      for (const pid of pids) process.kill(pid, "SIGCONT");
    }
    await allocation.exec(["/bin/touch", "/tmp/stop"]);
    const lines = await waitFor({
      what: "the task's last line in the log",
      timeoutMs: 60_000,
      attempt: async () => {
        const count = await linesOfTask(allocation);
        return (await logged()) >= count * lineBytes ? count : undefined;
      },
      seen: async () => `${await logged()} bytes of ${await linesOfTask(allocation)} lines`,
    });
    const text = (await written(allocation, "stdout")).trimEnd().split("\n");
    assert.ok(text.length >= lines);
    assert.equal(
      text.findIndex((line, index) => line.length !== lineBytes - 1 || Number(line.slice(0, 8)) !== index + 1),
      -1,
    );
  });

  it("passes through an exec session both ways at once, unchanged", async () => {
    const file = join(fixture.agent.directory, "input");
    await writeFile(file, randomBytes(execBytes));
    const { sent, received } = await execCopy({ allocation, file });
    assert.equal(received, sent);
  });

  it("passes through a session by call too, as with a guest from before the bulk streams", async () => {
    const { directory } = await machineOf(allocation);
    const { vsockPath } = JSON.parse(await readFile(join(directory, "machine.json"), "utf8")) as { vsockPath: string };
    using guest = new GuestClient({ vsockPath, bulkPort: 0 });
    const input = randomBytes(1_000_000);
    async function* pieces(): AsyncGenerator<{ kind: "stdin"; data: Uint8Array } | { kind: "stdin_end" }> {
      yield { kind: "stdin", data: input };
      yield { kind: "stdin_end" };
    }
    const { signal } = new AbortController();
    const output: Uint8Array[] = [];
    for await (const event of execInGuest({ guest, argv: ["/bin/cat"], terminal: false, input: pieces(), signal })) {
      if (event.kind === "exited") assert.equal(event.exitCode, 0);
      else output.push(event.data);
    }
    assert.ok(Buffer.concat(output).equals(input));
  });
});
