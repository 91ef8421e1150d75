// Names in an archive, cleaned lexically as docker does: absolute ones count as relative to the root, `.` and doubled
// slashes vanish, and `..` may not leave the root.
import { BadLayerError } from "../errors.ts";
import { shownName } from "./tar-entry.ts";

/** Linux's NAME_MAX and PATH_MAX; squashfs allows one byte more a name. */
const maxNameBytes = 255;
export const maxPathBytes = 4_095;
/** Before cleaning: twice that leaves room for doubled slashes. */
const maxRawBytes = 2 * maxPathBytes;

/** Fails with BadLayerError if the name leaves the root, is too long or has a NUL. */
export function cleanPath(raw: string): string {
  if (raw.includes("\0")) throw new BadLayerError({ problem: `the name ${shownName(raw)} has a NUL byte` });
  if (raw.length > maxRawBytes) {
    throw new BadLayerError({ problem: `the name ${shownName(raw)} is longer than ${maxPathBytes} bytes` });
  }
  const parts: string[] = [];
  for (const part of raw.split("/")) {
    if (part === "" || part === ".") continue;
    if (part !== "..") {
      if (part.length > maxNameBytes) {
        throw new BadLayerError({ problem: `the name ${shownName(part)} is longer than ${maxNameBytes} bytes` });
      }
      parts.push(part);
    } else if (parts.pop() === undefined) {
      throw new BadLayerError({ problem: `the name ${shownName(raw)} leads out of the image` });
    }
  }
  const path = parts.join("/");
  if (path.length > maxPathBytes) {
    throw new BadLayerError({ problem: `the name ${shownName(path)} is longer than ${maxPathBytes} bytes` });
  }
  return raw.length > path.length ? ownText(path) : path;
}

/** A part of a string keeps the whole string in memory; this copy does not. */
function ownText(latin1: string): string {
  return Buffer.from(latin1, "latin1").toString("latin1");
}
