// Errors of the host's programs, files and disks.
import { DriverError, driverError, printable } from "./error.ts";

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

const mib = (bytes: number): number => Math.floor(bytes / (1 << 20));

/** The file system has no room for something and the space that must stay free. */
export class DiskFullError extends driverError(
  "disk_full",
  (facts: {
    path: string;
    what: string;
    neededBytes: number;
    freeBytes: number;
    minFreeBytes: number;
    cure?: string;
  }) => {
    const { path, what, cure } = facts;
    const [needed, free, kept] = [facts.neededBytes, facts.freeBytes, facts.minFreeBytes].map(mib);
    return `the file system of ${path} is too full for ${what}: it needs ${needed} MiB, ${free} MiB are free, and ${kept} MiB must stay so (disk.min_free): free space there${cure === undefined ? "" : `, or ${cure}`}`;
  },
) {}

/** Somebody else than root could exchange a program or a directory of the driver. */
export class UntrustedPathError extends driverError(
  "untrusted_path",
  ({ name, part }: { name: string; part: { readonly path: string; readonly reason: string; readonly cure: string } }) =>
    `${name} can't be trusted: ${part.path} ${part.reason}, who could put something else there; ${part.cure}, or choose another path`,
) {}
