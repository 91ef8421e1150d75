import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { GuestClient } from "../../src/guest/client.ts";
import { FakeGuest, type FakeGuestOptions } from "./fake-guest.ts";

/** A path for a guest's socket, valid until the test ends. */
export async function socketPath(context: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "litegix-guest-test-"));
  context.after(() => rm(directory, { recursive: true }));
  return join(directory, "v.sock");
}

/** A guest with the given answers and a client of it, both until the test ends. */
export async function connectedGuest(
  context: TestContext,
  options: Omit<FakeGuestOptions, "socketPath"> & { firstAnswerMs?: number },
): Promise<{ fake: FakeGuest; guest: GuestClient; path: string }> {
  const path = await socketPath(context);
  const { firstAnswerMs, ...served } = options;
  const fake = await FakeGuest.start({ socketPath: path, ...served });
  const guest = new GuestClient({ vsockPath: path, ...(firstAnswerMs === undefined ? {} : { firstAnswerMs }) });
  context.after(async () => {
    guest[Symbol.dispose]();
    await fake[Symbol.asyncDispose]();
  });
  return { fake, guest, path };
}

/** A guest's answer to Hello. */
export const hello = { generation: 1, version: "0.1.0", kernelRelease: "6.1", state: 1, uptimeNs: 5_000_000n };
