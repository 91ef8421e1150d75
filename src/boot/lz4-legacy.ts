// LZ4's legacy frame, as Linux' build writes it for CONFIG_KERNEL_LZ4 (Debian's kernels): magic 02 21 4c 18, then blocks of
// {u32 compressed size, LZ4 block}, each of up to 8 MiB uncompressed, without checksums. No kept-up npm library reads the
// legacy frame, and the block format is small. Format: lz4_Frame_format.md ("Legacy frame") and lz4_Block_format.md.
import { setImmediate as nextTurn } from "node:timers/promises";

export const lz4LegacyMagic = 0x184c2102;
const maximumBlockBytes = 8 * 1024 * 1024;

export class Lz4FormatError extends Error {
  readonly code = "lz4_format";
  constructor(reason: string) {
    super(`damaged LZ4 data: ${reason}`);
  }
}

/** Decompresses a whole legacy frame; trailing bytes that are no block (the kernel's size word) end it. */
export async function decompressLz4Legacy(input: Buffer): Promise<Buffer> {
  if (input.length < 8 || input.readUInt32LE(0) !== lz4LegacyMagic) throw new Lz4FormatError("no legacy frame magic");
  const blocks: Buffer[] = [];
  const scratch = Buffer.allocUnsafe(maximumBlockBytes);
  let position = 4;
  while (position + 4 <= input.length) {
    const size = input.readUInt32LE(position);
    // The kernel appends the uncompressed size as the last four bytes; nothing follows it.
    if (position + 4 === input.length) break;
    if (size === 0 || position + 4 + size > input.length) throw new Lz4FormatError("a block exceeds the data");
    const length = decompressBlock(input.subarray(position + 4, position + 4 + size), scratch);
    blocks.push(Buffer.from(scratch.subarray(0, length)));
    position += 4 + size;
    // 8 MiB take some 20 ms: let RPCs be answered in between.
    await nextTurn();
  }
  return Buffer.concat(blocks);
}

/** Decompresses one LZ4 block into `output`; gives the number of bytes written. */
export function decompressBlock(input: Uint8Array, output: Uint8Array): number {
  let read = 0;
  let written = 0;
  const lengthFrom = (nibble: number): number => {
    let length = nibble;
    if (nibble === 15) {
      let byte: number | undefined;
      do {
        byte = input[read++];
        if (byte === undefined) throw new Lz4FormatError("a length runs past the block");
        length += byte;
      } while (byte === 255);
    }
    return length;
  };
  while (read < input.length) {
    const token = input[read++] ?? 0;
    const literals = lengthFrom(token >> 4);
    if (read + literals > input.length) throw new Lz4FormatError("literals run past the block");
    if (written + literals > output.length) throw new Lz4FormatError("more than 8 MiB in a block");
    output.set(input.subarray(read, read + literals), written);
    read += literals;
    written += literals;
    if (read === input.length) return written;
    const low = input[read++];
    const high = input[read++];
    if (low === undefined || high === undefined) throw new Lz4FormatError("an offset is cut off");
    const offset = low | (high << 8);
    if (offset === 0 || offset > written) throw new Lz4FormatError("an offset points before the block");
    const length = lengthFrom(token & 15) + 4;
    if (written + length > output.length) throw new Lz4FormatError("more than 8 MiB in a block");
    if (offset >= length) {
      output.copyWithin(written, written - offset, written - offset + length);
      written += length;
    } else {
      // Source and target overlap: the match repeats itself.
      for (const end = written + length; written < end; written++) output[written] = output[written - offset] ?? 0;
    }
  }
  return written;
}
