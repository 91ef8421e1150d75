// Describes a file that was given as a kernel or an initramfs, in words for its giver.

export interface FileKind {
  /** As in "it is NAME". */
  readonly name: string;
  /** The kernel unpacks it as (a part of) an initramfs. */
  readonly archive: boolean;
}

const hex = (text: string): Buffer => Buffer.from(text, "hex");

/** First bytes. An archive is a file that the kernel unpacks (lib/decompress.c of Linux). */
const magics: readonly (readonly [magic: Buffer, name: string, archive: boolean])[] = [
  [Buffer.from("070701"), "a cpio archive (an initramfs)", true],
  [Buffer.from("070702"), "a cpio archive (an initramfs)", true],
  [hex("1f8b"), "gzip data", true],
  [hex("28b52ffd"), "zstd data", true],
  [hex("fd377a585a00"), "xz data", true],
  [hex("02214c18"), "LZ4 data (legacy frame)", true],
  [hex("425a68"), "bzip2 data", true],
  [hex("894c5a4f"), "LZO data", true],
  [hex("5d0000"), "LZMA data", true],
  [hex("04224d18"), "LZ4 data (a frame that kernels don't use)", false],
  [hex("7f454c46"), "an ELF file", false],
  [Buffer.from("hsqs"), "a squashfs image", false],
  [Buffer.from("QFI\xfb", "latin1"), "a QCOW2 disk image", false],
  [Buffer.from("!<arch>"), "an ar archive (a Debian package?)", false],
  [hex("edabeedb"), "an RPM package", false],
  [Buffer.from("PK\x03\x04"), "a ZIP archive", false],
];

const isArm64Image = (content: Buffer): boolean =>
  content.length >= 64 && content.toString("latin1", 56, 60) === "ARM\x64";

export function describeFile(content: Buffer): FileKind {
  if (isArm64Image(content)) {
    return { name: "an aarch64 kernel (Image)", archive: false };
  }
  if (content.length > 0x206 && content.toString("latin1", 0x202, 0x206) === "HdrS") {
    return { name: "a kernel (bzImage)", archive: false };
  }
  for (const [magic, name, archive] of magics) {
    if (content.subarray(0, magic.length).equals(magic)) return { name, archive };
  }
  if (content.toString("latin1", 257, 262) === "ustar") return { name: "a tar archive", archive: false };
  if (content.length > 1082 && content.readUInt16LE(1080) === 0xef53) {
    return { name: "an ext2, ext3 or ext4 file system", archive: false };
  }
  if (content.toString("latin1", 0, 2) === "MZ") return { name: "an EFI program", archive: false };
  const start = content.subarray(0, 512);
  if (start.every((byte) => byte === 0)) return { name: "a file that begins with zeros", archive: false };
  if (start.every((byte) => byte >= 9 && byte < 127)) return { name: "a text file", archive: false };
  return { name: `something unknown (first bytes ${content.toString("hex", 0, 4)})`, archive: false };
}
