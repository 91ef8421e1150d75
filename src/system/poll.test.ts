import assert from "node:assert/strict";
import { mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { exists } from "./exists.ts";
import { pollUntil } from "./poll.ts";

const onTimeout = (): Error => new Error("too late");
/** Longer than any test runs: what resolves was told. */
const never = { intervalMs: 600_000, timeoutMs: 900_000, onTimeout };

describe("waiting", () => {
  let directory = "";
  let elsewhere = "";
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), "poll-"));
    elsewhere = await mkdtemp(join(tmpdir(), "poll-"));
  });
  after(() => Promise.all([directory, elsewhere].map((path) => rm(path, { recursive: true }))));

  it("a file that appears, by whatever way, is seen without a look in between", async () => {
    for (const [index, appear] of [
      (path: string) => writeFile(path, ""),
      async (path: string) => {
        await writeFile(join(elsewhere, "file"), "");
        await rename(join(elsewhere, "file"), path);
      },
    ].entries()) {
      const path = join(directory, `file-${index}`);
      let looks = 0;
      const seen = pollUntil({
        ...never,
        directory,
        attempt: async () => {
          looks += 1;
          return (await exists(path)) || undefined;
        },
      });
      while (looks === 0) await turn();
      await appear(path);
      assert.equal(await seen, true);
    }
  });

  it("an abort ends it with the signal's reason, with a directory and without", async () => {
    for (const watched of [undefined, directory]) {
      const stop = new AbortController();
      const waiting = pollUntil({
        ...never,
        directory: watched,
        attempt: async () => undefined,
        signal: stop.signal,
      });
      stop.abort(new Error("stopped"));
      await assert.rejects(waiting, /stopped/);
    }
  });

  it("the deadline's error is thrown, also where the directory is not there", async () => {
    await assert.rejects(
      pollUntil({
        directory: join(directory, "missing"),
        attempt: async () => undefined,
        intervalMs: 1,
        timeoutMs: 5,
        onTimeout,
      }),
      /too late/,
    );
  });
});
