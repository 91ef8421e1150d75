// What the driver tells Nomad, in sentences for the person who wrote the job or runs the cluster.

/** A value in the job's or the plugin's `config` block that breaks a rule. */
export class ConfigError extends Error {
  readonly code = "config";
  readonly key: string;
  readonly rule: string;
  constructor(key: string, value: unknown, rule: string) {
    super(`config: ${key}${value === undefined ? "" : ` = ${show(value)}`}: ${rule}`);
    this.key = key;
    this.rule = rule;
  }
}

function show(value: unknown): string {
  const text =
    JSON.stringify(value, (_, inner: unknown) => (typeof inner === "bigint" ? inner.toString() : inner)) ??
    String(value);
  return text.length > 100 ? `${text.slice(0, 97)}...` : text;
}

export class TaskNotFoundError extends Error {
  readonly code = "task_not_found";
  constructor(taskId: string) {
    super(`task not found for given id: ${taskId}`);
  }
}

export class TaskExistsError extends Error {
  readonly code = "task_exists";
  constructor(taskId: string) {
    super(`task ${taskId} has been started already`);
  }
}

export class TaskRunningError extends Error {
  readonly code = "task_running";
  constructor(taskId: string) {
    super(`task ${taskId} is running; stop it first, or destroy it with force`);
  }
}

/** The plugin can't start tasks now; the text is the fingerprint's. */
export class NotReadyError extends Error {
  readonly code = "not_ready";
  constructor(reason: string) {
    super(`the driver can't start tasks: ${reason}`);
  }
}

export class UnknownSignalError extends Error {
  readonly code = "unknown_signal";
  constructor(name: string) {
    super(`unknown signal ${JSON.stringify(name)}: give a Linux signal's name such as SIGTERM, or its number`);
  }
}

export class RecoverError extends Error {
  readonly code = "recover";
  constructor(taskId: string, reason: string, options?: ErrorOptions) {
    super(`can't recover task ${taskId}: ${reason}`, options);
  }
}
