// Paths that nobody but root (or this process's own user) can exchange. The driver runs as root: a user who may write one of
// the directories that lead to its programs and files could make it run or read others.
import type { Stats } from "node:fs";
import { lstat, readlink } from "node:fs/promises";
import { join, parse, resolve } from "node:path";
import { UntrustedPathError } from "./errors.ts";

/** A part of a path that somebody else may change. */
export interface UntrustedPart {
  readonly path: string;
  readonly reason: string;
  /** A command. */
  readonly cure: string;
}

/** As many as the kernel follows (path_resolution(7)). */
const maxLinks = 40;

/**
 * The first part of the path that others may change: one that others own or may write. In a directory with the sticky bit others
 * can't change what is not theirs, which is enough for all parts but the last. Links are followed. Parts that do not exist are
 * nobody's. `isDirectory`: only the directories on the way count, and the last part if it is one.
 */
export async function untrustedPart(options: {
  path: string;
  isDirectory?: boolean;
}): Promise<UntrustedPart | undefined> {
  const path = resolve(options.path);
  let links = 0;
  let at = parse(path).root;
  const rest = partsOf(path);
  for (;;) {
    const facts = await lstat(at).catch(() => undefined);
    if (facts === undefined) return undefined;
    const isLast = rest.length === 0;
    if (isLast && options.isDirectory === true && !facts.isDirectory() && !facts.isSymbolicLink()) return undefined;
    const fault = faultOf(at, facts, isLast);
    if (fault !== undefined) return fault;
    if (facts.isSymbolicLink()) {
      links += 1;
      if (links > maxLinks) return { path: at, reason: "is a link that leads nowhere", cure: `rm ${at}` };
      const target = resolve(at, "..", await readlink(at));
      rest.unshift(...partsOf(target));
      at = parse(target).root;
      continue;
    }
    const next = rest.shift();
    if (next === undefined) return undefined;
    at = join(at, next);
  }
}

/** Fails with UntrustedPathError. `name`: what the path is, in a sentence. */
export async function requireTrusted(options: { path: string; name: string }): Promise<void> {
  const part = await untrustedPart(options);
  if (part !== undefined) throw new UntrustedPathError({ name: options.name, part });
}

const partsOf = (path: string): string[] => path.split("/").filter((part) => part !== "" && part !== ".");

function faultOf(path: string, facts: Stats, isLast: boolean): UntrustedPart | undefined {
  if (facts.uid !== 0 && facts.uid !== process.geteuid?.()) {
    return { path, reason: `belongs to user ${facts.uid}`, cure: `chown root ${path}` };
  }
  if (facts.isSymbolicLink() || (facts.mode & 0o022) === 0) return undefined;
  if (!isLast && facts.isDirectory() && (facts.mode & 0o1000) !== 0) return undefined;
  const who = (facts.mode & 0o002) === 0 ? `group ${facts.gid}` : "everybody";
  return { path, reason: `can be written by ${who}`, cure: `chmod go-w ${path}` };
}
