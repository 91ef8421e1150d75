// Gives the root directory of a squashfs to user and group 0. mksquashfs makes it the caller's when it reads a tar archive, and
// releases up to 4.5 have no option against that. The table of ids is small, and uncompressed by `-noId`, so an entry
// can be overwritten (squashfs 4.0: superblock, then blocks of at most 8 KiB with a 2-byte header; all little-endian).
import { open } from "node:fs/promises";

const superblockBytes = 96;
const idCountOffset = 26;
const idTableOffset = 48;
const idsPerBlock = 2_048;
const blockHeaderBytes = 2;
const uncompressedFlag = 0x8000;

/** `owner` must own nothing else in the file system. Fails for a file that is not such a squashfs. */
export async function giveRootDirectory(options: { readonly path: string; readonly owner: number }): Promise<void> {
  await using file = await open(options.path, "r+");
  const read = async (position: number, sizeBytes: number): Promise<Buffer> => {
    const { bytesRead, buffer } = await file.read(Buffer.alloc(sizeBytes), 0, sizeBytes, position);
    if (bytesRead !== sizeBytes) throw new Error("mksquashfs left a truncated disk");
    return buffer;
  };
  const superblock = await read(0, superblockBytes);
  const count = superblock.readUInt16LE(idCountOffset);
  const blocks = Math.ceil(count / idsPerBlock);
  const pointers = await read(Number(superblock.readBigUInt64LE(idTableOffset)), blocks * 8);
  for (let block = 0; block < blocks; block++) {
    const start = Number(pointers.readBigUInt64LE(block * 8));
    const header = (await read(start, blockHeaderBytes)).readUInt16LE(0);
    if ((header & uncompressedFlag) === 0) throw new Error("mksquashfs compressed the table of ids");
    const ids = await read(start + blockHeaderBytes, header & ~uncompressedFlag);
    for (let offset = 0; offset + 4 <= ids.length; offset += 4) {
      if (ids.readUInt32LE(offset) === options.owner) ids.writeUInt32LE(0, offset);
    }
    await file.write(ids, 0, ids.length, start + blockHeaderBytes);
  }
}
