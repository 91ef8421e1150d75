// A supervisor without a VM: its hypervisor is a program that only waits, its guest is a unix socket.
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { ShimClient } from "../../../src/machine/shim-client.ts";
import { runSuccessfully } from "./command.ts";
import { waitFor } from "./wait.ts";

export const shimPath = join(import.meta.dirname, "../../../dist/assets/litegix-shim");

export interface RunningShim {
  readonly process: ChildProcess;
  readonly client: ShimClient;
  /** The bytes that a reader of its FIFO has taken. */
  readonly stdoutPath: string;
}

/** `path` is the prefix of its files' names. The guest's socket lies in the same directory. */
export async function startShim(options: { path: string; vsockSocket: string }): Promise<RunningShim> {
  const { path, vsockSocket } = options;
  const stdoutPath = `${path}.out`;
  await runSuccessfully({ file: "mkfifo", args: [`${path}.fifo`] });
  await writeFile(stdoutPath, "");
  const log = openSync(stdoutPath, "a");
  // It waits for the supervisor to open the FIFO, and ends with it.
  const reader = spawn("cat", [`${path}.fifo`], { stdio: ["ignore", log, "ignore"] });
  closeSync(log);
  reader.unref();
  const controlSocket = `${path}.sock`;
  const config = {
    version: 1,
    id: "a1b2c3d4",
    directory: dirname(path),
    control_socket: controlSocket,
    vsock_socket: vsockSocket,
    guest_port: 10,
    stdout_path: `${path}.fifo`,
    stderr_path: "/dev/null",
    log_root: dirname(path),
    exit_record: `${path}.exit`,
    state_file: `${path}.state`,
    log_file: `${path}.log`,
    cgroup_procs: [],
    ports: [],
    processes: [
      {
        name: "vmm",
        argv: ["/bin/sleep", "600"],
        output: `${path}.console`,
        ready_path: null,
        namespaces: [],
        taps: [],
        own_taps: [],
        binds: [],
        cgroup_procs: [],
      },
    ],
  };
  await writeFile(`${path}.json`, JSON.stringify(config));
  const child = spawn(shimPath, [`${path}.json`], { stdio: "ignore" });
  const client = new ShimClient({ controlSocket });
  await waitFor({
    what: "the supervisor to answer",
    timeoutMs: 60_000,
    intervalMs: 20,
    attempt: () => client.status().catch(() => undefined),
  });
  return { process: child, client, stdoutPath };
}

export async function endShim(shim: RunningShim): Promise<void> {
  const ended = new Promise((resolve) => shim.process.once("exit", resolve));
  shim.process.kill("SIGTERM");
  const timer = setTimeout(() => shim.process.kill("SIGKILL"), 5_000);
  await ended;
  clearTimeout(timer);
  shim.client[Symbol.dispose]();
}
