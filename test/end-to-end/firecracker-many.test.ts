// Ten jailed VMs of the real Firecracker that are started at once: each has a user, a network and a guest of its own, none keeps
// another from coming up, and nothing of any is left.
import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { skipFirecracker } from "./support/environment.ts";
import { Fixture } from "./support/fixture.ts";
import { assertNothingLeft, records, runFile, shell, stopJob } from "./support/jailed.ts";
import { waitFor } from "./support/wait.ts";

const count = 10;
/** They take turns: on emulated CPUs each boot takes seconds of one of them. */
const timeoutMs = 1_000_000;

// Ten guests on one emulated CPU would come to nothing but answering each second how they are.
const fixture = Fixture.use(undefined, { statsInterval: "60s" });

describe(`${count} VMs at once`, { skip: skipFirecracker }, () => {
  it("all run, apart from each other, and all end", async () => {
    const { agent } = fixture;
    const path = join(agent.directory, "many.nomad");
    await writeFile(
      path,
      `job "many" {
        group "g" {
          count = ${count}
          update {
            healthy_deadline  = "20m"
            progress_deadline = "25m"
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
    const ids = await runFile({ agent, path, job: "many", status: "running", count, timeoutMs });
    assert.equal(new Set(ids).size, count);
    const running = await records(agent);
    assert.equal(running.length, count);
    assert.equal(new Set(running.map(({ user }) => user?.uid)).size, count);
    const names: string[] = [];
    for (const id of ids) {
      let last = "";
      const name = await waitFor({
        what: `exec in ${id}`,
        timeoutMs: 120_000,
        attempt: async () => {
          const { stdout, stderr } = await agent.nomad(["alloc", "exec", id, "hostname"]);
          last = stderr;
          // A tenth of an emulated CPU may not do for the deadline that exec has where a guest hangs.
          return stdout.trim() || undefined;
        },
        seen: () => last,
      });
      names.push(name);
    }
    assert.deepEqual(names.toSorted(), running.map(({ id }) => id).toSorted());
    await stopJob(agent, "many");
    await assertNothingLeft(agent);
  });
});
