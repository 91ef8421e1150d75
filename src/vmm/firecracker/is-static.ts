// Decides if a program needs a loader and libraries, which a jail lacks: an ELF file with a PT_INTERP header does.
import { open } from "node:fs/promises";

const interpreterHeader = 3;
/** Firecracker has a dozen headers of 56 bytes. A larger table is another program's. */
const readBytes = 16 * 1024;

/** True also for a file that is not a 64-bit ELF: the attempt to run it gives a better error. */
export async function isStatic(path: string): Promise<boolean> {
  const file = await open(path);
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(readBytes), 0, readBytes, 0);
    return !hasInterpreter(buffer.subarray(0, bytesRead));
  } finally {
    await file.close();
  }
}

export function hasInterpreter(elf: Buffer): boolean {
  if (elf.length < 64 || elf.readUInt32BE(0) !== 0x7f454c46 || elf[4] !== 2) return false;
  const offset = Number(elf.readBigUInt64LE(32));
  const [size, count] = [elf.readUInt16LE(54), elf.readUInt16LE(56)];
  for (let index = 0; index < count; index++) {
    const at = offset + index * size;
    if (at + 4 > elf.length) return false;
    if (elf.readUInt32LE(at) === interpreterHeader) return true;
  }
  return false;
}
