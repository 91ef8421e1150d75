// One VM from the driver's side: the supervisor's control socket, the guest's client, and the way it ends. The VM does not
// depend on this object: dropping it (or the whole driver) leaves the VM running, and `adopt` finds it again.
import { setTimeout as delay } from "node:timers/promises";
import { GuestClient } from "../guest/client.ts";
import { oomKills } from "../system/cgroups.ts";
import { OwnTimeDeadline } from "../system/own-time.ts";
import { isAlive, type ProcessUsage, readUsage } from "../system/processes.ts";
import { explainEnding } from "./ending.ts";
import { identitiesOf, killMachine } from "./kill-machine.ts";
import { lastOutput } from "./log-tail.ts";
import { type MachineExit, type RecordedExit, readExitRecord, type VmEnd } from "./records/exit-record.ts";
import type { MachineFiles } from "./records/files.ts";
import { type MachineRecord, withoutNetwork, writeRecord } from "./records/manifest.ts";
import { readShimState, type ShimState } from "./records/shim-state.ts";
import type { RecordedVm, VmRecords } from "./records/vm-records.ts";
import { markEnding, removeTraces } from "./remove-machine.ts";
import { requireGeneration, ShimClient } from "./shim-client.ts";

/** A process of the VM on this host. */
export interface HostProcess {
  /** "vmm", "supervisor", or a helper's. */
  readonly name: string;
  readonly pid: number;
  readonly usage: ProcessUsage;
}

/** From the VMM's end until the supervisor has recorded it. */
const recordGraceMs = 15_000;

export class Machine implements Disposable {
  readonly files: MachineFiles;
  readonly guest: GuestClient;
  /** The task's end; pending while it runs. Never rejects. */
  readonly exited: Promise<MachineExit>;
  /** Aborts when the task has ended or the VM is gone. */
  readonly ended: AbortSignal;
  #record: MachineRecord;
  #knownShimState: ShimState | undefined;
  readonly #records: VmRecords;
  readonly #shim: ShimClient;
  readonly #exit = Promise.withResolvers<MachineExit>();
  readonly #end = new AbortController();
  readonly #disposed = new AbortController();

  /** Takes a VM that has processes, started by this or another driver process. Watches for its end until disposed of. */
  static adopt(vm: RecordedVm, records: VmRecords): Machine {
    const machine = new Machine(vm, records);
    void machine.#watchExit();
    return machine;
  }

  private constructor(vm: RecordedVm, records: VmRecords) {
    this.files = vm.files;
    this.#record = vm.record;
    this.#records = records;
    this.guest = new GuestClient({ vsockPath: vm.record.vsockPath });
    this.#shim = new ShimClient({ controlSocket: vm.files.controlSocket });
    this.exited = this.#exit.promise;
    this.ended = this.#end.signal;
  }

  get record(): MachineRecord {
    return this.#record;
  }

  async markRunning(): Promise<void> {
    this.#record = { ...this.#record, phase: "running" };
    await writeRecord(this.files.record, this.#record);
  }

  /** Fails with SupervisorIncompatibleError if the VM's supervisor speaks no generation of the protocol that this driver does. */
  async checkSupervisor(): Promise<void> {
    // The watch for the VM's end notices a supervisor that does not answer, or has ended.
    const status = await this.#shim.status().catch(() => undefined);
    if (status !== undefined) requireGeneration(status);
  }

  /** Brings the guest's clock to the host's; the supervisor keeps it there. */
  async syncClock(signal: AbortSignal): Promise<void> {
    await this.#shim.syncClock(signal);
  }

  /** Undefined until the VM has processes. */
  async vmmPid(): Promise<number | undefined> {
    return (await this.#shimState())?.vmm_pid;
  }

  /** For the guest's boot, in the VMM's own time. */
  async deadline(timeoutMs: number): Promise<OwnTimeDeadline> {
    return new OwnTimeDeadline({ pid: (await this.vmmPid()) ?? 0, timeoutMs });
  }

  /** The usage of the VM's processes on the host so far: the supervisor, the VMM, its helpers. */
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
    const alive = await Promise.all((await this.#identities()).map(isAlive));
    if (!this.ended.aborted && alive.every(Boolean)) return undefined;
    const exit = await Promise.race([this.exited, delay(recordGraceMs, undefined)]);
    return exit?.kind === "error" ? { code: exit.code ?? "vmm_failed", reason: exit.reason } : undefined;
  }

  /**
   * From now on any end of the VM counts as wanted, also for the next driver process: this one may die before the end
   * is on record.
   * On a full disk the VM ends all the same.
   */
  async markKilled(): Promise<void> {
    if (this.#record.phase !== "running") return;
    this.#record = { ...this.#record, phase: "killed" };
    await writeRecord(this.files.record, this.#record).catch(() => undefined);
  }

  /** Ends every process of the VM, as wanted. Fails with MachineStuckError. */
  async kill(): Promise<void> {
    await this.markKilled();
    await killMachine(this.#vm);
  }

  /** The interface in the VM's plan is another driver's, and stays when this VM is removed. */
  disownNetwork(): void {
    this.#record = withoutNetwork(this.#record);
  }

  /** Kills what runs and removes every trace of the VM. Fails with MachineStuckError, NetworkSetupError or a file's error. */
  async destroy(): Promise<void> {
    this.#record = await markEnding(this.#vm);
    await this.kill();
    this[Symbol.dispose]();
    await removeTraces(this.#vm, this.#records);
  }

  /** Lets go of the connections; the VM goes on. */
  [Symbol.dispose](): void {
    this.#disposed.abort();
    this.guest[Symbol.dispose]();
    this.#shim[Symbol.dispose]();
  }

  get #vm(): RecordedVm {
    return { files: this.files, record: this.#record };
  }

  async #identities(): ReturnType<typeof identitiesOf> {
    return await identitiesOf(this.#vm, await this.#shimState());
  }

  /** Undefined until the VM has processes; they are the same then to its end. */
  async #shimState(): Promise<ShimState | undefined> {
    this.#knownShimState ??= await readShimState(this.files.shimState);
    return this.#knownShimState;
  }

  async #watchExit(): Promise<void> {
    const exit = await this.#readExit();
    const explained = exit.kind === "error" ? await this.#explain(exit) : exit;
    this.#end.abort(new Error(explained.kind === "error" ? explained.reason : "the task has ended"));
    this.#exit.resolve(explained);
  }

  async #explain(exit: VmEnd): Promise<MachineExit> {
    const { phase } = this.#record;
    if (phase === "killed" || phase === "ending") return { kind: "killed" };
    if (exit.code !== undefined) return exit;
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

  async #readExit(): Promise<RecordedExit> {
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

  /** Ends a VM whose logs and end would be lost. A jailed VMM does not die with its supervisor. */
  async #withoutSupervisor(): Promise<RecordedExit> {
    const code = "supervisor_lost";
    const why = (await oomKills(this.#record.supervisorCgroups)) > 0 ? ": its cgroup had no memory left" : "";
    const reason = `the VM's supervisor was killed, and the VM with it${why} (${code})`;
    await killMachine(this.#vm).catch(() => undefined);
    return { kind: "error", code, reason };
  }
}
