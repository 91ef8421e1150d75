// One holder at a time among all processes of this host: flock(2) on a file that only root can open. The kernel frees it
// when the last process that has it open is gone, so there are no stale locks to judge. Node has no flock, so the `flock`
// program of util-linux (or busybox) holds it, with `cat` as its command: `cat` answers once the lock is there, and ends
// with our end of its pipe, whatever ends us. A unix socket at a path would need a judgement about dead owners, in which
// two processes can both find that they are the new one.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { open } from "node:fs/promises";
import { StoreFailedError } from "../errors.ts";

const maxStderrChars = 500;

/** Waits until `signal` aborts. Disposing of the returned object frees the lock. Fails with StoreFailedError. */
export async function acquireLock(options: {
  /** Made if it is missing, and never removed: another process may wait for it. */
  readonly path: string;
  readonly signal: AbortSignal;
}): Promise<AsyncDisposable> {
  const { path, signal } = options;
  signal.throwIfAborted();
  await (await open(path, "a", 0o600)).close();
  const child = spawn("flock", [path, "cat"], { stdio: ["pipe", "pipe", "pipe"] });
  const ended = once(child, "close");
  // Without this handler the process would end with an error that `waiting` reports already.
  ended.catch(() => undefined);
  let said = "";
  child.stderr.on("data", (chunk: Buffer) => {
    said = (said + chunk.toString("utf8")).slice(-maxStderrChars);
  });
  child.stdin.on("error", () => undefined);
  const kill = (): void => void child.kill("SIGKILL");
  signal.addEventListener("abort", kill);
  try {
    child.stdin.write("\n");
    const held = await Promise.race([once(child.stdout, "data").then(() => true), ended.then(() => false)]);
    signal.throwIfAborted();
    if (!held) throw new Error(said.trim() || "flock ended");
  } catch (cause) {
    child.stdin.destroy();
    signal.throwIfAborted();
    const isMissing = (cause as NodeJS.ErrnoException).code === "ENOENT";
    const problem = isMissing ? "there is no program flock; install util-linux" : (cause as Error).message;
    throw new StoreFailedError({ directory: path, problem: `can't lock it: ${problem}`, cause });
  } finally {
    signal.removeEventListener("abort", kill);
  }
  return {
    [Symbol.asyncDispose]: async () => {
      child.stdin.end();
      await ended;
    },
  };
}
