// One VM from the driver's side: the supervisor's control socket, the guest's client, and the way it ends. The VM does not
// depend on this object: dropping it (or the whole driver) leaves the VM running, and `adopt` finds it again.
import { rm } from "node:fs/promises";
import { dirname } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { GuestClient } from "../guest/client.ts";
import { detachNetwork } from "../network/network.ts";
import { emptyGroup, processesOf, removeGroup } from "../system/cgroups.ts";
import {
  findByArgument,
  isAlive,
  killProcess,
  ownIdentity,
  type ProcessIdentity,
  type ProcessUsage,
  readUsage,
} from "../system/processes.ts";
import { pollUntil } from "../system/wait.ts";
import { requireGeneration, ShimClient } from "./create/shim-client.ts";
import { giveDrivesBack } from "./drives.ts";
import { explainEnding } from "./ending.ts";
import { MachineStuckError } from "./errors.ts";
import { lastOutput } from "./log-tail.ts";
import { type MachineFiles, machineFiles } from "./records/files.ts";
import {
  type MachineExit,
  type MachineRecord,
  readExitRecord,
  readRecord,
  readShimState,
  type ShimState,
  writeRecord,
} from "./records/manifest.ts";
import { listNetworkPlans } from "./records/network-plans.ts";

/** A process of the VM on this host. */
export interface HostProcess {
  /** "vmm", "supervisor", or a helper's. */
  readonly name: string;
  readonly pid: number;
  readonly usage: ProcessUsage;
}

/** From the VMM's end until the supervisor has written it down. */
const recordGraceMs = 15_000;
/** From SIGKILL until the kernel has taken a process down: a busy host gives back a VM's memory slowly. */
const deathTimeoutMs = 30_000;

export class Machine implements Disposable {
  readonly files: MachineFiles;
  readonly guest: GuestClient;
  /** How the task ended; pending while it runs. Never rejects. */
  readonly exited: Promise<MachineExit>;
  /** Aborts when the task has ended or the VM is gone. */
  readonly ended: AbortSignal;
  #record: MachineRecord;
  #knownShimState: ShimState | undefined;
  readonly #shim: ShimClient;
  readonly #disposed = new AbortController();

  constructor(options: { directory: string; record: MachineRecord }) {
    this.files = machineFiles(options.directory);
    this.#record = options.record;
    this.guest = new GuestClient({ vsockPath: options.record.vsockPath });
    this.#shim = new ShimClient({ controlSocket: this.files.controlSocket });
    const ended = new AbortController();
    this.ended = ended.signal;
    this.exited = this.#watchExit().then((exit) => {
      ended.abort(new Error(exit.kind === "error" ? exit.reason : "the task has ended"));
      return exit;
    });
  }

  /** The VM of a directory as another driver process left it; undefined when its record is missing or unreadable. */
  static async adopt(directory: string): Promise<Machine | undefined> {
    const record = await readRecord(machineFiles(directory).record);
    return record === undefined ? undefined : new Machine({ directory, record });
  }

  get record(): MachineRecord {
    return this.#record;
  }

  async markRunning(): Promise<void> {
    this.#record = { ...this.#record, phase: "running" };
    await writeRecord(this.files.record, this.#record);
  }

  /** Fails with SupervisorIncompatibleError when the VM's supervisor speaks no protocol that this driver does. */
  async checkSupervisor(): Promise<void> {
    // One that does not answer, or has ended, is found out by whoever waits for the VM's end.
    const status = await this.#shim.status().catch(() => undefined);
    if (status !== undefined) requireGeneration(status);
  }

  /** Brings the guest's clock to the host's; the supervisor keeps it there. */
  async syncClock(signal: AbortSignal): Promise<void> {
    await this.#shim.syncClock(signal);
  }

  /** What the VM's processes have used of the host so far: the supervisor, the VMM, its helpers. */
  async hostProcesses(): Promise<HostProcess[]> {
    const state = await this.#shimState();
    if (state === undefined) return [];
    const processes = [
      { name: "supervisor", pid: state.shim_pid, start_time: state.shim_start_time },
      ...state.processes,
    ];
    const found: HostProcess[] = [];
    for (const { name, pid, start_time: startTime } of processes) {
      const usage = readUsage({ pid, startTime });
      if (usage !== undefined) found.push({ name, pid, usage });
    }
    return found;
  }

  /** Undefined as long as the VMM runs; its end is recorded a moment after. */
  async endingIfVmmIsGone(): Promise<{ code: string; reason: string } | undefined> {
    const identities = await this.#identities();
    const alive = await Promise.all(identities.map(isAlive));
    if (!this.ended.aborted && alive.every(Boolean)) return undefined;
    const exit = await Promise.race([this.exited, delay(recordGraceMs, undefined)]);
    return exit?.kind === "error" ? { code: exit.code ?? "vmm_failed", reason: exit.reason } : undefined;
  }

  /** Ends every process of the VM. Fails with MachineStuckError. */
  async kill(): Promise<void> {
    try {
      await this.#shim.kill();
    } catch {
      // No supervisor answers: what follows asks the kernel, not the supervisor.
    }
    const identities = await this.#identities();
    // The supervisor ends by itself once the VMM is reaped and the record written; its death takes its children along.
    for (const [index, identity] of identities.entries()) {
      const patienceMs = index === 0 ? 2_000 : 0;
      if (await diesWithin(identity, patienceMs)) continue;
      await killProcess(identity, "SIGKILL");
      if (!(await diesWithin(identity, deathTimeoutMs)))
        throw new MachineStuckError({ id: this.#record.id, pid: identity.pid });
    }
    // Whatever of the VM the supervisor did not come to tell about, or what no longer dies with it.
    const { cgroups } = this.#record;
    if (!(await emptyGroup({ directories: cgroups, timeoutMs: deathTimeoutMs }))) {
      throw new MachineStuckError({ id: this.#record.id, pid: (await processesOf(cgroups))[0] ?? 0 });
    }
  }

  /** Kills what runs and removes every trace of the VM: its hold on the host's disks, its cgroup, then its directory with the jail and the record. */
  async destroy(): Promise<void> {
    await this.#markEnding();
    await this.kill();
    this[Symbol.dispose]();
    await this.#removeNetwork();
    await giveDrivesBack(this.#record);
    await removeGroup({ directories: this.#record.cgroups, timeoutMs: deathTimeoutMs });
    await rm(this.files.directory, { recursive: true, force: true });
  }

  /** Nomad does not ask again for what a driver failed to take away or died over: the next one sees by the record that it should. */
  async #markEnding(): Promise<void> {
    this.#record = { ...this.#record, phase: "ending", creator: await ownIdentity() };
    // Without a directory nothing is left, and on a full disk the VM ends all the same.
    await writeRecord(this.files.record, this.#record).catch(() => undefined);
  }

  async #removeNetwork(): Promise<void> {
    const { network } = this.#record;
    if (network === undefined) return;
    const machinesDirectory = dirname(this.files.directory);
    await detachNetwork({ plan: network, readPlans: () => listNetworkPlans(machinesDirectory) });
  }

  /** Lets go of the connections; the VM goes on. */
  [Symbol.dispose](): void {
    this.#disposed.abort();
    this.guest[Symbol.dispose]();
    this.#shim[Symbol.dispose]();
  }

  /** Undefined until the VM has processes; they are the same then to its end. */
  async #shimState(): Promise<ShimState | undefined> {
    this.#knownShimState ??= await readShimState(this.files.shimState);
    return this.#knownShimState;
  }

  /** The supervisor first, then the VMM. */
  async #identities(): Promise<ProcessIdentity[]> {
    const state = await this.#shimState();
    const identities: ProcessIdentity[] = [];
    const shim =
      state === undefined
        ? (this.#record.shim ?? (await findByArgument(this.files.shimConfig)))
        : { pid: state.shim_pid, startTime: state.shim_start_time };
    if (shim !== undefined) identities.push(shim);
    if (state !== undefined) identities.push({ pid: state.vmm_pid, startTime: state.vmm_start_time });
    return identities;
  }

  async #watchExit(): Promise<MachineExit> {
    const exit = await this.#readExit();
    if (exit.kind === "task" || exit.code !== undefined) return exit;
    const { vmm, helper } = exit;
    const { code, summary } = await explainEnding({ vmm, helper, record: this.#record, files: this.files });
    if (helper !== undefined) return { ...exit, code, reason: `${summary} (${code}): ${exit.reason}` };
    // The supervisor's own quote makes way for a longer one.
    const [reason = ""] = exit.reason.split("; last output: ");
    const output = await lastOutput(this.files.vmmLog);
    return {
      ...exit,
      code,
      reason: `${summary} (${code}): ${reason}${output === "" ? "" : `; last output: ${output}`}`,
    };
  }

  async #readExit(): Promise<MachineExit> {
    for (;;) {
      await this.#shim.wait().catch(() => undefined);
      const exit = await readExitRecord(this.files.exitRecord);
      if (exit !== undefined) return exit;
      if (this.#disposed.signal.aborted) return { kind: "error", code: "let_go", reason: "the VM was let go of" };
      const [shim] = await this.#identities();
      if (shim === undefined || !(await isAlive(shim))) {
        // It may have written the record between the two looks.
        const late = await readExitRecord(this.files.exitRecord);
        return late ?? (await this.#withoutSupervisor());
      }
      await delay(100);
    }
  }

  /** A VM that nobody reads the logs of nor learns the end of is of no use: it is ended. A jailed one does not die with its supervisor. */
  async #withoutSupervisor(): Promise<MachineExit> {
    const code = "supervisor_lost";
    const reason = `the VM's supervisor was killed, and the VM with it (${code})`;
    await this.kill().catch(() => undefined);
    return { kind: "error", code, reason };
  }
}

async function diesWithin(identity: ProcessIdentity, timeoutMs: number): Promise<boolean> {
  try {
    return await pollUntil({
      attempt: async () => ((await isAlive(identity)) ? undefined : true),
      intervalMs: 10,
      timeoutMs,
      onTimeout: () => new Error("alive"),
    });
  } catch {
    return false;
  }
}
