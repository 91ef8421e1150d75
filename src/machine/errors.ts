// What can go wrong in a VM's life.

/** The VM did not come up; `output` is the end of what VMM and guest console said. */
export class MachineStartError extends Error {
  /** What failed: this folder's or the VMM's own code. */
  readonly code: string;
  readonly output: string;
  constructor(facts: { code?: string; reason: string; output?: string; cause?: unknown }) {
    const { code = "machine_start", reason, output = "", cause } = facts;
    const text = reason.includes(`(${code})`) ? reason : `${reason} (${code})`;
    super(output === "" ? text : `${text}; last output: ${output}`, { cause });
    this.code = code;
    this.output = output;
  }
}

export class ScratchDiskError extends Error {
  readonly code = "scratch_disk";
  constructor(path: string, options?: ErrorOptions) {
    super(`can't make the task's writable disk ${path}: ${(options?.cause as Error | undefined)?.message}`, options);
  }
}

/** Two tries to end the VM's processes failed; nothing of it has been removed. */
export class MachineStuckError extends Error {
  readonly code = "machine_stuck";
  constructor(id: string, pid: number) {
    super(`VM ${id} can't be ended: process ${pid} survives SIGKILL`);
  }
}

/** Every user of the range runs a VM. */
export class NoFreeUserError extends Error {
  readonly code = "no_free_user";
  constructor(range: { readonly first: number; readonly last: number }) {
    super(
      `no user is free for another jailed VM: all of ${range.first}-${range.last} are taken; widen jailer.uid_range in the plugin's config`,
    );
  }
}

/** A disk that one VM writes belongs to it alone, as long as it lives. */
export class DriveInUseError extends Error {
  readonly code = "drive_in_use";
  constructor(
    drive: { readonly path: string },
    holder: { readonly id: string; readonly labels: Readonly<Record<string, string>> } | undefined,
  ) {
    const { taskName, allocId } = holder?.labels ?? {};
    const whose = taskName === undefined ? "" : ` of task ${JSON.stringify(taskName)} in allocation ${allocId}`;
    const rule =
      holder === undefined
        ? "another drive of this task is the same disk: name it once"
        : `VM ${holder.id}${whose} has it, and what one VM writes no other may have: stop that one first, or let all have it with is_read_only = true`;
    super(`drive ${drive.path} is in use: ${rule}`);
  }
}

/** The VM's cgroup can't be made. */
export class CgroupError extends Error {
  readonly code = "cgroup";
  constructor(options: ErrorOptions & { cause: Error }) {
    super(`can't make the VM's cgroup: ${options.cause.message}`, options);
  }
}

/** The VM's supervisor is of another age than this driver. */
export class SupervisorIncompatibleError extends Error {
  readonly code = "supervisor_incompatible";
  constructor(facts: {
    generation: number;
    version: string;
    spoken: { readonly min: number; readonly max: number };
  }) {
    const { generation, version, spoken } = facts;
    super(
      `the VM's supervisor, of version ${JSON.stringify(version)}, speaks generation ${generation} of its protocol, this driver ${spoken.min} to ${spoken.max}: the VM is replaced`,
    );
  }
}
