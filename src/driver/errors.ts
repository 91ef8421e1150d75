// The driver's errors for Nomad, as sentences for the job's author or the cluster's operator.
import { DriverError, driverError } from "../system/error.ts";

/** A value in the job's or the plugin's `config` block that breaks a rule. */
export class ConfigError extends DriverError<"config"> {
  declare readonly key: string;
  declare readonly rule: string;

  constructor(key: string, value: unknown, rule: string) {
    super("config", `config: ${key}${value === undefined ? "" : ` = ${show(value)}`}: ${rule}`, { key, rule });
  }
}

function show(value: unknown): string {
  const text = JSON.stringify(value, (_, inner: unknown) => jsonValue(inner)) ?? String(value);
  return text.length > 100 ? `${text.slice(0, 97)}...` : text;
}

function jsonValue(value: unknown): unknown {
  if (typeof value === "bigint") return value.toString();
  return value instanceof Map ? Object.fromEntries(value as Map<string, unknown>) : value;
}

export class TaskNotFoundError extends driverError(
  "task_not_found",
  (facts: { taskId: string }) => `task not found for given id: ${facts.taskId}`,
) {}

export class TaskExistsError extends driverError(
  "task_exists",
  (facts: { taskId: string }) => `task ${facts.taskId} has been started already`,
) {}

export class TaskRunningError extends driverError(
  "task_running",
  (facts: { taskId: string }) => `task ${facts.taskId} is running; stop it first, or destroy it with force`,
) {}

/** The plugin can't start tasks now; the text is the fingerprint's. */
export class NotReadyError extends driverError(
  "not_ready",
  (facts: { reason: string }) => `the driver can't start tasks: ${facts.reason}`,
) {}

export class UnknownSignalError extends driverError(
  "unknown_signal",
  (facts: { signal: string }) =>
    `unknown signal ${JSON.stringify(facts.signal)}: give a Linux signal's name such as SIGTERM, or its number`,
) {}

export class RecoverError extends driverError(
  "recover",
  (facts: { taskId: string; reason: string }) => `can't recover task ${facts.taskId}: ${facts.reason}`,
) {}

export class ExecTimeoutError extends driverError(
  "exec_timeout",
  (facts: { command: readonly string[]; timeoutMs: number }) =>
    `${facts.command[0] ?? ""} did not end within ${facts.timeoutMs / 1000} s and was killed`,
) {}

export class EmptyCommandError extends driverError("empty_command", () => "the command is empty: name a program") {}

/** A failed start that Nomad's `restart` policy may try again; code and text are the cause's. */
export class RecoverableError extends DriverError {
  constructor(cause: DriverError) {
    super(cause.code, cause.message, { cause });
  }
}
