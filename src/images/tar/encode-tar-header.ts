// Writes the header blocks of one tar entry: plain ustar where everything fits, a pax header before it where a name is
// long, a number is large or there are extended attributes. Fields are re-encoded from checked values, so that what
// reaches mksquashfs is always well-formed, whatever the layer's author wrote.
import { encodePaxRecord } from "./pax.ts";
import { padding } from "./read-tar.ts";
import type { TarEntryType, TarHeader } from "./tar-entry.ts";
import { blockBytes } from "./ustar-block.ts";

const typeFlags: Readonly<Record<TarEntryType, string>> = {
  file: "0",
  hardlink: "1",
  symlink: "2",
  character: "3",
  block: "4",
  directory: "5",
  fifo: "6",
};
const maxNameBytes = 100;
const maxOctal7 = 0o7777777;
const maxOctal11 = 0o77777777777;

export function encodeTarHeader(header: TarHeader): Buffer {
  const records: Buffer[] = [];
  const put = (key: string, value: string): void => {
    records.push(encodePaxRecord(key, Buffer.from(value, "latin1")));
  };
  if (header.path.length > maxNameBytes) put("path", header.path);
  if (header.target.length > maxNameBytes) put("linkpath", header.target);
  if (header.uid > maxOctal7) put("uid", String(header.uid));
  if (header.gid > maxOctal7) put("gid", String(header.gid));
  if (header.sizeBytes > maxOctal11) put("size", String(header.sizeBytes));
  for (const { name, value } of header.xattrs) records.push(encodePaxRecord(`SCHILY.xattr.${name}`, value));
  const main = encodeBlock(header, typeFlags[header.type]);
  if (records.length === 0) return main;
  const data = Buffer.concat(records);
  const extension = {
    ...header,
    path: "pax",
    target: "",
    mode: 0o644,
    uid: 0,
    gid: 0,
    mtime: 0,
    sizeBytes: data.length,
  };
  return Buffer.concat([encodeBlock(extension, "x"), data, Buffer.alloc(padding(data.length)), main]);
}

function encodeBlock(header: TarHeader, typeFlag: string): Buffer {
  const block = Buffer.alloc(blockBytes);
  block.write(header.path.slice(0, maxNameBytes), 0, "latin1");
  octal(block, 100, 8, header.mode);
  octal(block, 108, 8, header.uid > maxOctal7 ? 0 : header.uid);
  octal(block, 116, 8, header.gid > maxOctal7 ? 0 : header.gid);
  octal(block, 124, 12, header.sizeBytes > maxOctal11 ? 0 : header.sizeBytes);
  octal(block, 136, 12, header.mtime);
  block.write(typeFlag, 156, "latin1");
  block.write(header.target.slice(0, maxNameBytes), 157, "latin1");
  block.write("ustar\u000000", 257, "latin1");
  octal(block, 329, 8, header.deviceMajor);
  octal(block, 337, 8, header.deviceMinor);
  block.fill(0x20, 148, 156);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return block;
}

function octal(block: Buffer, start: number, sizeBytes: number, value: number): void {
  block.write(`${value.toString(8).padStart(sizeBytes - 1, "0")}\0`, start, "latin1");
}
