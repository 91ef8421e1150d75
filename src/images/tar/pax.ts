// PAX extended headers: records `LENGTH KEY=VALUE\n`, LENGTH in decimal and counting the whole record. Values are bytes:
// `SCHILY.xattr.security.capability` is binary and must not pass through any text decoding.
import { BadLayerError } from "../errors.ts";
import { shownName, type TarXattr } from "./tar-entry.ts";

const xattrPrefix = "SCHILY.xattr.";
/** The namespaces that squashfs can hold; the overlay's own attributes would steer the guest's overlay mount. */
const keptXattrs = /^(?:user\.|security\.|trusted\.(?!overlay\.))/;
/** All that an entry is made from. */
const keptKeys = /^(?:path|linkpath|size|uid|gid|mtime|GNU\.sparse\..*)$/;
/** Linux's XATTR_NAME_MAX and XATTR_SIZE_MAX. */
const maxXattrNameBytes = 255;
const maxXattrValueBytes = 64 * 1024;
/** All names and values of one entry; file systems rarely hold more than 64 KiB. */
const maxEntryXattrBytes = 256 * 1024;
const maxLengthDigits = 10;
const equalsByte = 0x3d;
const newlineByte = 0x0a;
const spaceByte = 0x20;

export interface PaxRecords {
  /** The known keys, latin1; an empty value has taken the record back. */
  readonly values: ReadonlyMap<string, string>;
  /** Those of the namespaces that a squashfs can hold. */
  readonly xattrs: readonly TarXattr[];
}

const noXattrs: readonly TarXattr[] = [];

/** Fails with BadLayerError for anything that is not of the record form, and for attributes that no Linux could have. */
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
      const name = data.toString("latin1", space + 1 + xattrPrefix.length, equals);
      if (keptXattrs.test(name)) xattrs.set(name, xattrValue(name, data.subarray(equals + 1, end - 1)));
    } else if (keptKeys.test(key)) {
      values.set(key, data.toString("latin1", equals + 1, end - 1));
    }
    offset = end;
  }
  let xattrBytes = 0;
  for (const [name, value] of xattrs) xattrBytes += name.length + value.length;
  if (xattrBytes > maxEntryXattrBytes) {
    throw new BadLayerError({
      problem: `the extended attributes of one file have more than ${maxEntryXattrBytes} bytes`,
    });
  }
  return { values, xattrs: xattrs.size === 0 ? noXattrs : [...xattrs].map(([name, value]) => ({ name, value })) };
}

/** A copy with memory of its own: a window, or a piece of Node's pool, would keep much more alive than its own bytes. */
function xattrValue(name: string, value: Buffer): Buffer {
  if (name.length > maxXattrNameBytes || value.length > maxXattrValueBytes) {
    const what = `the extended attribute ${shownName(name)} has ${value.length} bytes`;
    throw new BadLayerError({
      problem: `${what}; Linux allows ${maxXattrValueBytes}, and ${maxXattrNameBytes} in its name`,
    });
  }
  const copy = Buffer.allocUnsafeSlow(value.length);
  value.copy(copy);
  return copy;
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
