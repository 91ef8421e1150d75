// One member of a tar archive, as far as an image needs it. Names are raw bytes kept in latin1 strings, so that names
// which are not UTF-8, and binary attribute values, come out as they went in.

export type TarEntryType = "file" | "directory" | "symlink" | "hardlink" | "character" | "block" | "fifo";

export interface TarXattr {
  readonly name: string;
  readonly value: Buffer;
}

export interface TarHeader {
  /** Clean and relative: no leading or trailing slash, no `.` or `..`; the root is the empty string. */
  readonly path: string;
  readonly type: TarEntryType;
  /** Permission bits with setuid, setgid and sticky; no type bits. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Whole seconds since 1970, 0 to 2^32-1, which is what squashfs can hold. */
  readonly mtime: number;
  readonly sizeBytes: number;
  /** A symlink's text as it is; a hard link's target as a clean path; else empty. */
  readonly target: string;
  readonly deviceMajor: number;
  readonly deviceMinor: number;
  readonly xattrs: readonly TarXattr[];
}

export const maxUint32 = 0xffff_ffff;

/** A latin1 name for people: its bytes read as UTF-8, cut to a length that a log line can bear. */
export function shownName(name: string): string {
  return JSON.stringify(Buffer.from(name.slice(0, 200), "latin1").toString("utf8"));
}
