// Where a program lies: the file behind a name on PATH or behind a path, links resolved.
import { constants } from "node:fs";
import { access, realpath } from "node:fs/promises";
import { delimiter, join } from "node:path";

/** Undefined when there is no such program. A name with a slash is a path. */
export async function findProgram(name: string): Promise<string | undefined> {
  const candidates = name.includes("/")
    ? [name]
    : (process.env["PATH"] ?? "").split(delimiter).map((directory) => join(directory, name));
  for (const candidate of candidates) {
    try {
      await access(candidate, constants.X_OK);
      return await realpath(candidate);
    } catch {
      // The next one.
    }
  }
  return undefined;
}
