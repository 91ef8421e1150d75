// One 512-byte tar header block: POSIX ustar, GNU and the old V7 form. Numbers are octal text or GNU's base-256 form
// (first byte 0x80 or 0xff); the checksum may have been summed over signed or unsigned bytes.
import { BadLayerError } from "../errors.ts";
import { shownName } from "./tar-entry.ts";

export const blockBytes = 512;

export interface UstarBlock {
  readonly name: string;
  readonly typeFlag: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtime: number;
  readonly sizeBytes: number;
  readonly linkName: string;
  readonly deviceMajor: number;
  readonly deviceMinor: number;
}

const checksumOffset = 148;
const checksumEnd = 156;

/** Undefined for a block of zeroes, which marks the end. Fails with BadLayerError for a block that is not a header. */
export function parseUstarBlock(block: Buffer): UstarBlock | undefined {
  let unsigned = 0;
  let signed = 0;
  for (let index = 0; index < blockBytes; index++) {
    const byte = index >= checksumOffset && index < checksumEnd ? 0x20 : (block[index] ?? 0);
    unsigned += byte;
    signed += byte > 127 ? byte - 256 : byte;
  }
  if (unsigned === 8 * 0x20 && block.every((byte) => byte === 0)) return undefined;
  const checksum = number(block, checksumOffset, 8, "checksum");
  if (checksum !== unsigned && checksum !== signed) {
    throw new BadLayerError({ problem: "a tar header has a wrong checksum; the layer is damaged or no tar archive" });
  }
  // GNU's magic is "ustar" and spaces; its prefix area holds other things.
  const isPosix = block.toString("latin1", 257, 263) === "ustar\0";
  const hasDevices = block.toString("latin1", 257, 262) === "ustar";
  const prefix = isPosix ? text(block, 345, 155) : "";
  const name = text(block, 0, 100);
  return {
    name: prefix === "" ? name : `${prefix}/${name}`,
    typeFlag: String.fromCharCode(block[156] ?? 0),
    mode: number(block, 100, 8, "mode"),
    uid: number(block, 108, 8, "uid"),
    gid: number(block, 116, 8, "gid"),
    sizeBytes: number(block, 124, 12, "size"),
    mtime: number(block, 136, 12, "mtime"),
    linkName: text(block, 157, 100),
    deviceMajor: hasDevices ? number(block, 329, 8, "device number") : 0,
    deviceMinor: hasDevices ? number(block, 337, 8, "device number") : 0,
  };
}

function text(block: Buffer, start: number, sizeBytes: number): string {
  const field = block.subarray(start, start + sizeBytes);
  const end = field.indexOf(0);
  return field.toString("latin1", 0, end === -1 ? sizeBytes : end);
}

function number(block: Buffer, start: number, sizeBytes: number, what: string): number {
  const first = block[start] ?? 0;
  if ((first & 0x80) !== 0) return base256(block.subarray(start, start + sizeBytes), what);
  const digits = text(block, start, sizeBytes).trim();
  if (digits === "") return 0;
  if (!/^[0-7]+$/.test(digits)) {
    throw new BadLayerError({ problem: `a tar header has a malformed ${what}: ${shownName(digits)}` });
  }
  return Number.parseInt(digits, 8);
}

/** Big-endian two's complement, the marking bit aside. */
function base256(field: Buffer, what: string): number {
  const isNegative = ((field[0] ?? 0) & 0x40) !== 0;
  let value = 0n;
  for (const [index, byte] of field.entries()) value = (value << 8n) | BigInt(index === 0 ? byte & 0x7f : byte);
  if (isNegative) value -= 1n << BigInt(field.length * 8 - 1);
  const result = Number(value);
  if (!Number.isSafeInteger(result)) throw new BadLayerError({ problem: `a tar header has a ${what} out of range` });
  return result;
}
