// The FIFOs of a task's logs when the driver takes the task over. The supervisor opened them once and never opens them again, so a
// file that took a FIFO's place meanwhile gets nothing. Nomad's reader opens the path anew after a restart and reads from that
// file instead: the log has ended, and the user must learn of it.
import { lstat, realpath } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import type { TaskConfig } from "../nomad-driver.ts";

type LogPaths = Pick<TaskConfig, "allocDirectory" | "stdoutPath" | "stderrPath">;

/** An event's text for each log that is no longer the FIFO that Nomad made. */
export async function endedLogs(config: LogPaths): Promise<string[]> {
  const paths = [config.stdoutPath, config.stderrPath];
  const intact = await Promise.all(paths.map((path) => isLog(path, config.allocDirectory)));
  return paths
    .filter((_, index) => intact[index] === false)
    .map(
      (path) =>
        `the task's log ends here: ${path} is no longer the FIFO that Nomad made, and the supervisor writes to nothing else; restart the task once nobody replaces it (log_fifo)`,
    );
}

async function isLog(path: string, root: string): Promise<boolean> {
  if (path === "/dev/null") return true;
  try {
    const parent = join(await realpath(root), relative(root, dirname(path)));
    return (await lstat(path)).isFIFO() && (await realpath(dirname(path))) === parent;
  } catch {
    return false;
  }
}
