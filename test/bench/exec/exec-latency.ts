// Splits the time of `nomad alloc exec ... true`: the shares of the CLI and of the agent's endpoint as timed from
// outside, the driver's and the guest's from the driver's debug log.
import type { Agent } from "../../end-to-end/support/agent.ts";
import type { Allocation } from "../../end-to-end/support/allocation.ts";
import { runExec } from "../../end-to-end/support/exec-session.ts";
import { median } from "../median.ts";

export async function cliLatency(allocation: Allocation): Promise<number> {
  const { exitCode, stderr, elapsedMs } = await allocation.exec(["/bin/true"]);
  if (exitCode !== 0) throw new Error(`true: exit code ${exitCode}, ${stderr}`);
  return elapsedMs;
}

export async function endpointLatency(allocation: Allocation): Promise<number> {
  const started = performance.now();
  const { exitCode, reason } = await runExec({ allocation, argv: ["/bin/true"] });
  if (exitCode !== 0) throw new Error(`true: exit code ${exitCode}, ${reason}`);
  return performance.now() - started;
}

export interface DriverTimes {
  /** Connecting to the guest. */
  readonly dial: number;
  /** From there to the guest's message that the program runs. */
  readonly start: number;
  /** The part of `start` in which the guest makes the process. */
  readonly guest: number;
  /** From there to the program's end. */
  readonly run: number;
}

/** Medians over all sessions in the agent's log. */
export async function driverTimes(agent: Agent): Promise<DriverTimes> {
  const lines = (await agent.log()).split("\n").filter((line) => line.includes("exec session in ms"));
  const of = (name: string): number =>
    median(lines.map((line) => Number(new RegExp(`${name}=([\\d.e-]+)`).exec(line)?.[1] ?? Number.NaN)));
  return { dial: of("dialMs"), start: of("startMs"), guest: of("guestMs"), run: of("runMs") };
}
