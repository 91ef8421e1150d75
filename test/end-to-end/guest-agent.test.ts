// The guest's agent stays small: its file, its memory, and nothing left over after many execs. The driver's own client
// opens the sessions: a thousand runs of Nomad's command line would take half an hour here.
import assert from "node:assert/strict";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { GuestClient } from "../../src/guest/client.ts";
import { execInGuest } from "../../src/guest/exec/session.ts";
import { runService } from "./support/allocation.ts";
import { skipVms } from "./support/environment.ts";
import { Fixture } from "./support/fixture.ts";
import { machineOf } from "./support/machines.ts";
import { waitFor } from "./support/wait.ts";

const fixture = Fixture.use();
const execs = 1000;
const atOnce = 4;
const mebibyte = 1024 * 1024;

async function* noInput(): AsyncGenerator<never> {}

describe("the guest's agent", { skip: skipVms }, () => {
  it("is a file of at most 2.5 MB", async () => {
    const { size } = await stat(join(import.meta.dirname, "../../dist/assets/litegix-init"));
    assert.ok(size <= 2_500_000, `${size} bytes`);
  });

  it(`after ${execs} execs: at most 4 MiB, no process, descriptor or zombie more than before`, async () => {
    await fixture.ready();
    const allocation = await runService({
      agent: fixture.agent,
      // Each exec leaves a process to the namespace's first one.
      config: 'image = "busybox:latest"\ninit = true\ncommand = "sleep"\nargs = ["1d"]',
    });
    const { directory } = await machineOf(allocation);
    const { vsockPath } = JSON.parse(await readFile(join(directory, "machine.json"), "utf8")) as { vsockPath: string };
    using guest = new GuestClient({ vsockPath });

    // Every tenth has a shell, output, an orphan and an exit code, every twentieth a terminal too.
    const run = async (index: number): Promise<void> => {
      const whole = index % 10 === 0;
      let output = "";
      const session = execInGuest({
        guest,
        argv: whole ? ["/bin/sh", "-c", `echo ${index}; (true & ); exit ${index % 7}`] : ["/bin/true"],
        terminal: index % 20 === 0,
        input: noInput(),
        signal: AbortSignal.timeout(60_000),
      });
      for await (const event of session) {
        if (event.kind === "exited") assert.equal(event.exitCode, whole ? index % 7 : 0);
        else output += Buffer.from(event.data).toString();
      }
      assert.equal(output.trim(), whole ? `${index}` : "");
    };
    const runAll = async (first: number, count: number): Promise<void> => {
      const indexes = Array.from({ length: count }, (_, index) => first + index).values();
      await Promise.all(
        Array.from({ length: atOnce }, async () => {
          for (const index of indexes) await run(index);
        }),
      );
    };
    // The guest sees the ends of connections a moment later.
    const settled = async (): Promise<Awaited<ReturnType<GuestClient["stats"]>>["init"]> => {
      let last = "";
      return await waitFor({
        what: "the agent to be at rest",
        timeoutMs: 30_000,
        attempt: async () => {
          const { init } = await guest.stats();
          const seen = `${init.descriptors} ${init.children}`;
          const atRest = seen === last;
          last = seen;
          return atRest ? init : undefined;
        },
        seen: () => last,
      });
    };

    await runAll(0, 20);
    const before = await settled();
    await runAll(20, execs - 20);
    const after = await settled();
    console.log(`agent: ${JSON.stringify({ before, after })}`);
    assert.ok(before.children >= 1, "it counts its children");
    assert.equal(after.children, before.children);
    assert.equal(after.descriptors, before.descriptors);
    assert.ok(after.residentBytes <= 4 * mebibyte, `${after.residentBytes} bytes`);
    assert.ok(after.residentBytes - before.residentBytes < mebibyte / 2, "it grows");
  });
});
