// Bulk data through `nomad alloc exec -i ... cat` and back, both ways at once.
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import type { Allocation } from "./allocation.ts";
import { nomadPath } from "./environment.ts";

/** Resolves with the hashes of the bytes sent and of the bytes that came back. */
export async function execCopy(options: {
  allocation: Allocation;
  file: string;
}): Promise<{ sent: string; received: string }> {
  const { allocation, file } = options;
  const child = spawn(nomadPath, ["alloc", "exec", "-i", "-t=false", allocation.id, "/bin/cat"], {
    env: { ...process.env, NOMAD_ADDR: allocation.agent.address },
    stdio: ["pipe", "pipe", "inherit"],
  });
  const sent = createHash("sha256");
  const received = createHash("sha256");
  const source = createReadStream(file, { highWaterMark: 1 << 16 });
  source.on("data", (chunk) => void sent.update(chunk));
  source.pipe(child.stdin);
  child.stdout.on("data", (chunk: Buffer) => void received.update(chunk));
  const code = await new Promise<number | null>((resolve) => child.once("close", resolve));
  if (code !== 0) throw new Error(`nomad alloc exec cat: exit code ${code}`);
  return { sent: sent.digest("hex"), received: received.digest("hex") };
}
