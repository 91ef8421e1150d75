// Bulk data through `nomad alloc exec`, with raw_exec and our driver alike: one program at the far end, the CLI at this
// one.
import { type ChildProcess, spawn } from "node:child_process";
import { createReadStream } from "node:fs";
import type { Allocation } from "../../end-to-end/support/allocation.ts";
import { nomadPath } from "../../end-to-end/support/environment.ts";

export interface Side {
  readonly allocation: Allocation;
  /** The path of crates/sys/examples/bench-copy.rs for the allocation's task. */
  readonly program: string;
}

function start(side: Side, flags: readonly string[], args: readonly string[], stdin: "ignore" | "pipe"): ChildProcess {
  const { allocation, program } = side;
  return spawn(nomadPath, ["alloc", "exec", ...flags, "-t=false", allocation.id, program, ...args], {
    env: { ...process.env, NOMAD_ADDR: allocation.agent.address },
    stdio: [stdin, "pipe", "pipe"],
  });
}

/** Milliseconds from the first to the last byte of output, without the cost of a session's start. */
export async function execOut(side: Side, bytes: number): Promise<number> {
  const child = start(side, ["-i=false"], ["send", `${bytes}`], "ignore");
  let first = 0;
  let seen = 0;
  let errors = "";
  child.stdout?.on("data", (chunk: Buffer) => {
    first ||= performance.now();
    seen += chunk.length;
  });
  child.stderr?.on("data", (chunk: Buffer) => {
    errors += chunk.toString();
  });
  const code = await new Promise<number | null>((resolve) => child.once("close", resolve));
  if (code !== 0 || seen !== bytes) throw new Error(`exec: exit code ${code}, ${seen} bytes; ${errors}`);
  return performance.now() - first;
}

/** Milliseconds of standard input, from the first byte sent to the command's end. */
export async function execIn(side: Side, file: string, bytes: number): Promise<number> {
  const child = start(side, ["-i"], ["count"], "pipe");
  let started = 0;
  let output = "";
  child.stdout?.on("data", (chunk: Buffer) => {
    output += chunk.toString();
    if (started !== 0 || child.stdin === null) return;
    started = performance.now();
    createReadStream(file, { highWaterMark: 1 << 16 }).pipe(child.stdin);
  });
  const code = await new Promise<number | null>((resolve) => child.once("close", resolve));
  if (code !== 0 || output !== `ready\n${bytes}\n`) throw new Error(`exec: exit code ${code}, ${output}`);
  return performance.now() - started;
}
