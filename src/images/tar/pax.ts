// PAX extended headers: records `LENGTH KEY=VALUE\n`, LENGTH in decimal and counting the whole record. Values are bytes:
// `SCHILY.xattr.security.capability` is binary and must not pass through any text decoding.
import { BadLayerError } from "../errors.ts";
import { shownName, type TarXattr } from "./tar-entry.ts";

const xattrPrefix = "SCHILY.xattr.";
const maxLengthDigits = 10;
const equalsByte = 0x3d;
const newlineByte = 0x0a;
const spaceByte = 0x20;

export interface PaxRecords {
  /** By key, latin1; an empty value has taken the record back. */
  readonly values: ReadonlyMap<string, string>;
  readonly xattrs: readonly TarXattr[];
}

/** Fails with BadLayerError for anything that is not of the record form. */
export function parsePax(data: Buffer): PaxRecords {
  const values = new Map<string, string>();
  const xattrs = new Map<string, Buffer>();
  let offset = 0;
  while (offset < data.length) {
    const space = data.indexOf(spaceByte, offset);
    const digits = space === -1 ? "" : data.toString("latin1", offset, Math.min(space, offset + maxLengthDigits + 1));
    const end = offset + Number(digits);
    if (!/^[0-9]{1,10}$/.test(digits) || end <= space + 1 || end > data.length || data[end - 1] !== newlineByte) {
      throw malformed();
    }
    const equals = data.indexOf(equalsByte, space + 1);
    if (equals === -1 || equals >= end || equals === space + 1) throw malformed();
    const key = data.toString("latin1", space + 1, equals);
    if (key.startsWith(xattrPrefix)) {
      // A copy: the original is a window on a chunk of a megabyte.
      xattrs.set(key.slice(xattrPrefix.length), Buffer.from(data.subarray(equals + 1, end - 1)));
    } else {
      values.set(key, data.toString("latin1", equals + 1, end - 1));
    }
    offset = end;
  }
  return { values, xattrs: [...xattrs].map(([name, value]) => ({ name, value })) };
}

/** A decimal number, possibly negative or with a fraction, which is cut off downwards. */
export function paxNumber(text: string, key: string): number {
  const value = Math.floor(Number(text));
  if (!/^-?[0-9]+(?:\.[0-9]*)?$/.test(text) || !Number.isSafeInteger(value)) {
    throw new BadLayerError({ problem: `a pax header has a malformed ${key}: ${shownName(text)}` });
  }
  return value;
}

/** One record; its length counts its own digits. */
export function encodePaxRecord(key: string, value: Uint8Array): Buffer {
  const tail = Buffer.concat([Buffer.from(` ${key}=`, "latin1"), value, Buffer.from("\n")]);
  let length = tail.length + String(tail.length).length;
  length = tail.length + String(length).length;
  return Buffer.concat([Buffer.from(String(length)), tail]);
}

function malformed(): BadLayerError {
  return new BadLayerError({ problem: "a pax header is malformed" });
}
