// Errors of host programs.
import { DriverError, printable } from "./error.ts";

export interface CommandFailure {
  readonly code: "command_not_started" | "command_failed" | "command_timed_out" | "command_aborted";
  /** How the command ended: "failed with status 1". */
  readonly end: string;
  readonly cause?: unknown;
}

const maxCommandChars = 200;
const maxOutputChars = 400;

/** A command that did not end with status 0. Its message has the end of its output, which mostly says why. */
export class CommandError extends DriverError<CommandFailure["code"]> {
  constructor(command: readonly string[], failure: CommandFailure, output = "") {
    const said = printable(output, Number.POSITIVE_INFINITY);
    const tail = said.length > maxOutputChars ? `...${said.slice(-maxOutputChars)}` : said;
    const text = `command "${printable(command.join(" "), maxCommandChars)}" ${failure.end}`;
    super(failure.code, tail === "" ? text : `${text}: ${tail}`, { cause: failure.cause });
  }
}
