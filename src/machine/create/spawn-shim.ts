// Starts a VM's supervisor (crates/shim) and reports if it runs.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { guestPort } from "../../guest/client.ts";
import { PortInUseError } from "../../network/errors.ts";
import { findPortHolder } from "../../network/host/port-holder.ts";
import { confined } from "../../system/confine.ts";
import type { HostFile } from "../../system/host-file.ts";
import { type ProcessIdentity, readStartTime } from "../../system/processes.ts";
import { pollUntil } from "../../system/wait.ts";
import type { LaunchPlan, VmProcess } from "../../vmm/vmm.ts";
import { MachineStartError } from "../errors.ts";
import { lastOutput } from "../log-tail.ts";
import { readExitRecord, type VmEnd } from "../records/exit-record.ts";
import type { MachineFiles } from "../records/files.ts";
import { readShimState } from "../records/shim-state.ts";

export interface SpawnShimOptions {
  readonly shimPath: string;
  readonly id: string;
  readonly files: MachineFiles;
  readonly plan: LaunchPlan;
  /** The FIFOs that take the task's output, or /dev/null. */
  readonly stdoutPath: string;
  readonly stderrPath: string;
  /** No link is followed beneath it on the way to them. */
  readonly logRoot: string;
  /** The VM's cgroup, for every process of the VM. */
  readonly cgroups: readonly string[];
  /** The supervisor's own cgroup. */
  readonly ownCgroups: readonly string[];
  /** The published ports, which the supervisor holds. */
  readonly ports: readonly { readonly address: string; readonly port: number }[];
  readonly signal: AbortSignal;
}

/** The supervisor's files report at once; this is for a supervisor that died without output. */
const exitLookIntervalMs = 100;
/** By the wall clock. The supervisor waits 30 s for a helper; the rest is for a busy host. */
const shimStartTimeoutMs = 120_000;

/**
 * Resolves with the supervisor once it serves its control socket, holds the published ports, and has started every process of
 * the VM. Fails with PortInUseError or MachineStartError.
 */
export async function spawnShim(options: SpawnShimOptions): Promise<ProcessIdentity> {
  const { files } = options;
  await writeFile(files.shimConfig, JSON.stringify(shimConfig(options)), { mode: 0o600 });
  const child = spawn(options.shimPath, [files.shimConfig], {
    detached: true,
    stdio: ["ignore", "ignore", "ignore", ...passedFiles(options.plan).map(({ descriptor }) => descriptor)],
    cwd: files.directory,
    env: { PATH: process.env["PATH"] ?? "/usr/sbin:/usr/bin:/sbin:/bin" },
  });
  const ended = new Promise<string>((resolve) => {
    child.once("error", (error) => resolve(error.message));
    child.once("exit", (code, signal) => resolve(signal ?? `exit status ${code}`));
  });
  await Promise.race([once(child, "spawn"), ended]);
  let endedHow: string | undefined;
  void ended.then((how) => {
    endedHow = how;
  });
  child.unref();
  const { pid } = child;
  if (pid === undefined) {
    throw new MachineStartError({ reason: `can't start the VM's supervisor ${options.shimPath}: ${await ended}` });
  }
  const startTime = (await readStartTime(pid)) ?? "";
  const attempt = async (): Promise<number | undefined> => {
    const exit = await readExitRecord(files.exitRecord);
    if (exit?.kind === "error" && exit.portInUse !== undefined) {
      throw new PortInUseError({ ...exit.portInUse, holder: await findPortHolder(exit.portInUse) });
    }
    if (exit?.kind === "error") throw notStarted(exit);
    if (endedHow !== undefined) {
      const reason = `the VM's supervisor ended (${endedHow})`;
      throw new MachineStartError({ code: "supervisor_lost", reason, output: await lastOutput(files.shimLog) });
    }
    return (await readShimState(files.shimState))?.vmm_pid;
  };
  try {
    await pollUntil({
      attempt,
      directory: files.directory,
      intervalMs: exitLookIntervalMs,
      timeoutMs: shimStartTimeoutMs,
      onTimeout: () =>
        new MachineStartError({
          reason: `the VM's supervisor did not start the VM within ${shimStartTimeoutMs / 1000} s`,
        }),
      signal: options.signal,
    });
    return { pid, startTime };
  } catch (error) {
    // Its children die with it.
    child.kill("SIGKILL");
    throw error;
  }
}

function notStarted({ code = "vmm_not_started", reason }: VmEnd): MachineStartError {
  return new MachineStartError({ code, reason });
}

/** The supervisor inherits them in this order, from descriptor 3 on. */
function passedFiles(plan: LaunchPlan): HostFile[] {
  return plan.processes.flatMap(({ drives = [] }) => drives.map(({ file }) => file));
}

/** As crates/shim reads it. */
function shimConfig(options: SpawnShimOptions): Record<string, unknown> {
  const { files, plan } = options;
  const passed = passedFiles(plan);
  return {
    version: 1,
    id: options.id,
    directory: files.directory,
    control_socket: files.controlSocket,
    vsock_socket: plan.vsockPath,
    guest_port: guestPort,
    stdout_path: options.stdoutPath,
    stderr_path: options.stderrPath,
    log_root: options.logRoot,
    exit_record: files.exitRecord,
    state_file: files.shimState,
    log_file: files.shimLog,
    cgroup_procs: options.ownCgroups.map(cgroupProcs),
    ports: options.ports,
    processes: plan.processes.map((process) => ({
      name: process.name,
      argv: argvOf(process, options.shimPath),
      output: process.outputPath,
      ready_path: process.readyPath ?? null,
      namespaces: process.namespaces,
      own_taps: (process.ownTaps ?? []).map(({ tap, tapMac, mtu, user }) => ({
        name: tap,
        mac: tapMac.split(":").map((byte) => Number.parseInt(byte, 16)),
        mtu,
        owner: user === undefined ? null : [user.uid, user.gid],
      })),
      taps: (process.taps ?? []).map(({ tap, netns, descriptor }) => ({ name: tap, netns: netns ?? null, descriptor })),
      binds: (process.binds ?? []).map(({ source, target, readOnly }) => ({ source, target, read_only: readOnly })),
      drives: (process.drives ?? []).map(({ file, target, readOnly, user }) => ({
        descriptor: 3 + passed.indexOf(file),
        path: file.path,
        identity: file.identity,
        target,
        read_only: readOnly,
        user: user ?? null,
      })),
      cgroup_procs: options.cgroups.map(cgroupProcs),
    })),
  };
}

const cgroupProcs = (directory: string): string => join(directory, "cgroup.procs");

function argvOf({ argv, confinement }: VmProcess, shimPath: string): readonly string[] {
  return confinement === undefined ? argv : confined({ shimPath, confinement, argv });
}
