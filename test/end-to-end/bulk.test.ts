// Bulk data: through an exec session and back unchanged, a task's output while nobody reads it, and a large log.
// LITEGIX_E2E_EXEC_MB and LITEGIX_E2E_LOG_MB set the sizes of the session and of the log (default 24 each, for emulated
// guests). `make test-bulk` runs the 256 and 1000 that the product promises.
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { createReadStream } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { type Allocation, runJob, startJob } from "./support/allocation.ts";
import { skipVms } from "./support/environment.ts";
import { execCopy } from "./support/exec-copy.ts";
import { Fixture } from "./support/fixture.ts";
import { logmonPids, written, writtenFiles } from "./support/logmon.ts";
import { waitFor } from "./support/wait.ts";

const execBytes = Number(process.env["LITEGIX_E2E_EXEC_MB"] ?? "24") * 1_000_000;
const logPieces = Number(process.env["LITEGIX_E2E_LOG_MB"] ?? "24");
const pieceBytes = 1_000_000;
/** Ten times what an emulated guest needs on an idle machine. */
const msPerPiece = 500;
const lineBytes = 1024;
/** The guest's buffer and the FIFO, less one frame that no longer fitted and the FIFO's pages that are not full. */
const fullBytes = (1024 + 256 - 128) * 1024;

const fixture = Fixture.use();

async function linesOfTask(allocation: Allocation): Promise<number> {
  const { stdout } = await allocation.exec(["/bin/cat", "/tmp/lines"]);
  return Number(stdout);
}

describe("bulk data", { skip: skipVms }, () => {
  let allocation: Allocation;

  it("is kept in full buffers while logmon stands still, the task waits, and no byte is lost", async () => {
    // 1 KiB a line, numbered. The second file counts the lines that the task has written.
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
          // On a busy machine the task may pause for a second before all buffers are full.
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

  it("comes whole into the log, by its count and its hash", async () => {
    // One random piece again and again, each behind its number: a piece that is lost, doubled or moved shows.
    const script = [
      `head -c ${pieceBytes} /dev/urandom >/tmp/piece; sha256sum </tmp/piece >&2`,
      `i=0; while [ $i -lt ${logPieces} ]; do echo $i; cat /tmp/piece; i=$((i + 1)); done`,
    ].join("\n");
    const logged = await runJob({
      agent: fixture.agent,
      config: `image = "busybox:latest"\ncommand = "/bin/sh"\nargs = ["-c", ${JSON.stringify(script)}]`,
      // Nomad must keep all of it: its default rotation would delete the first files.
      task: `logs {\nmax_files = 10\nmax_file_size = ${Math.ceil(logPieces / 8) + 1}\n}`,
      group: `ephemeral_disk {\nsize = ${(Math.ceil(logPieces / 8) + 1) * 20 + 100}\n}`,
      runTimeoutMs: 60_000 + logPieces * msPerPiece,
    });
    assert.deepEqual(await logged.exit(), { exitCode: 0, signal: 0 });
    const [, pieceHash] = await logged.waitForLog(/^([0-9a-f]{64}) /, { stream: "stderr" });
    const expected = createHash("sha256");
    let expectedBytes = 0;
    const numbered = (index: number): string => `${index}\n`;
    for (let index = 0; index < logPieces; index++) expectedBytes += numbered(index).length + pieceBytes;
    const count = async (): Promise<number> => {
      let bytes = 0;
      for (const { sizeBytes } of await writtenFiles(logged, "stdout")) bytes += sizeBytes;
      return bytes;
    };
    await waitFor({
      what: `${expectedBytes} bytes in the log`,
      timeoutMs: 60_000,
      attempt: async () => (await count()) >= expectedBytes || undefined,
      seen: async () => `${await count()} bytes`,
    });
    assert.equal(await count(), expectedBytes);
    const received = createHash("sha256");
    let head = Buffer.alloc(0);
    const headBytes = numbered(0).length + pieceBytes;
    for (const { path } of await writtenFiles(logged, "stdout")) {
      for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) {
        received.update(chunk);
        if (head.length < headBytes) head = Buffer.concat([head, chunk]);
      }
    }
    const piece = head.subarray(numbered(0).length, headBytes);
    assert.equal(createHash("sha256").update(piece).digest("hex"), pieceHash);
    for (let index = 0; index < logPieces; index++) expected.update(numbered(index)).update(piece);
    assert.equal(received.digest("hex"), expected.digest("hex"));
  });

  it("passes through an exec session both ways at once, unchanged", async () => {
    const file = join(fixture.agent.directory, "input");
    await writeFile(file, randomBytes(execBytes));
    const { sent, received } = await execCopy({ allocation, file });
    assert.equal(received, sent);
  });
});
