// VMs that are started at once. Each has an address, a guest and (if jailed) a user of its own, none keeps another from
// coming up, and nothing of any is left. Ten of the real Firecracker; LITEGIX_E2E_VMS=50 starts as many, on any VMM.
import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { inRig, skipFirecracker, skipVms } from "./support/environment.ts";
import { Fixture } from "./support/fixture.ts";
import { assertNothingLeft, records, runFile, type SeenRecord, shell, stopJob } from "./support/jailed.ts";
import { waitFor } from "./support/wait.ts";

const wanted = process.env["LITEGIX_E2E_VMS"];
const count = Number(wanted ?? 10);
const skip = wanted === undefined ? skipFirecracker : skipVms;
/** The boots take turns: each needs seconds of an emulated CPU. */
const timeoutMs = 1_200_000;

// On one emulated CPU, the guests would do nothing but answer each second's request for figures.
const fixture = Fixture.use(undefined, { statsInterval: "60s" });

describe(`${count} VMs at once`, { skip }, () => {
  it("all run, apart from each other, and all end", { timeout: 2 * timeoutMs }, async () => {
    const { agent } = fixture;
    const path = join(agent.directory, "many.nomad");
    await writeFile(
      path,
      `job "many" {
        group "g" {
          count = ${count}
          update {
            healthy_deadline  = "25m"
            progress_deadline = "30m"
          }
          restart {
            attempts = 0
            mode     = "fail"
          }
          task "main" {
            driver = "litegix-fc-driver"
            config {
              ${shell("echo I run on $(hostname); sleep 3600")}
            }
            resources {
              cpu    = 20
              memory = 128
            }
          }
        }
      }`,
    );
    const ids = await runFile({ agent, path, job: "many", status: "running", count, timeoutMs, faults: 3 });
    assert.equal(new Set(ids).size, count);
    // Nomad keeps the record of a VM that the rig's emulation has ended.
    const ofRunning = ({ labels }: SeenRecord): boolean => ids.includes(labels["allocId"] ?? "");
    const running = (await records(agent)).filter((record) => !inRig || ofRunning(record));
    assert.equal(running.length, count);
    const users = running.flatMap(({ user }) => (user === undefined ? [] : [user.uid]));
    assert.equal(new Set(users).size, users.length);
    assert.equal(users.length, skipFirecracker === false ? count : 0);
    assert.equal(new Set(running.map(({ network }) => network?.address)).size, count);
    const names: string[] = [];
    for (const id of ids) {
      let last = "";
      const name = await waitFor({
        what: `exec in ${id}`,
        timeoutMs: 120_000,
        attempt: async () => {
          const { stdout, stderr } = await agent.nomad(["alloc", "exec", id, "hostname"]);
          last = stderr;
          // A tenth of an emulated CPU may not meet exec's deadline for a guest that hangs.
          return stdout.trim() || undefined;
        },
        seen: () => last,
      });
      names.push(name);
    }
    assert.deepEqual(names.toSorted(), running.map(({ id }) => id).toSorted());
    await stopJob(agent, "many");
    // Nomad destroys two allocations of a purged job at a time (`gc_parallel_destroys`).
    await assertNothingLeft(agent, 30_000 * count);
  });
});
