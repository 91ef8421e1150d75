/**
 * Names in an archive, cleaned lexically as docker does: absolute ones are taken as relative to the root, `.` and
 * doubled slashes vanish, `..` is allowed only as long as it does not leave the root.
 */
import { BadLayerError } from "../errors.ts";
import { shownName } from "./tar-entry.ts";

/** Linux's NAME_MAX and PATH_MAX; squashfs allows one byte more a name. */
const MAX_NAME_BYTES = 255;
export const MAX_PATH_BYTES = 4_095;

/** @throws BadLayerError if the name leaves the root, is too long or has a NUL */
export function cleanPath(raw: string): string {
  if (raw.includes("\0")) {
    throw new BadLayerError({ problem: `the name ${shownName(raw)} has a NUL byte` });
  }
  const parts: string[] = [];
  for (const part of raw.split("/")) {
    if (part === "" || part === ".") {
      continue;
    }
    if (part !== "..") {
      if (part.length > MAX_NAME_BYTES) {
        throw new BadLayerError({ problem: `the name ${shownName(part)} is longer than ${MAX_NAME_BYTES} bytes` });
      }
      parts.push(part);
    } else if (parts.pop() === undefined) {
      throw new BadLayerError({ problem: `the name ${shownName(raw)} leads out of the image` });
    }
  }
  const path = parts.join("/");
  if (path.length > MAX_PATH_BYTES) {
    throw new BadLayerError({ problem: `the name ${shownName(path)} is longer than ${MAX_PATH_BYTES} bytes` });
  }
  return path;
}
