// The guest's first file system: our init and the modules it loads, as an uncompressed "newc" cpio archive (the format of
// Linux' Documentation/driver-api/early-userspace/buffer-format.rst). Uncompressed, because unpacking costs boot time and
// the few MB are read from the page cache. Times and inode numbers are fixed, so the same input gives the same bytes.
import type { KernelModule } from "./kernel-modules.ts";

interface Entry {
  readonly name: string;
  readonly mode: number;
  readonly content?: Uint8Array;
  readonly device?: readonly [major: number, minor: number];
}

export interface InitramfsContent {
  readonly init: Uint8Array;
  readonly modules: readonly KernelModule[];
}

const directoryMode = 0o40755;
const programMode = 0o100755;
const fileMode = 0o100644;
const characterDeviceMode = 0o20600;

export function buildInitramfs(content: InitramfsContent): Buffer {
  // Each line: a file, and the condition under which init loads it.
  const order = content.modules.map(({ fileName, condition }) => `${fileName} ${condition ?? ""}`.trimEnd());
  const entries: Entry[] = [
    ...["dev", "proc", "sys", "run", "modules"].map((name) => ({ name, mode: directoryMode })),
    // The kernel opens it for init before anything is mounted.
    { name: "dev/console", mode: characterDeviceMode, device: [5, 1] },
    { name: "init", mode: programMode, content: content.init },
    { name: "modules/order", mode: fileMode, content: Buffer.from(order.map((line) => `${line}\n`).join("")) },
    ...content.modules.map((module) => ({
      name: `modules/${module.fileName}`,
      mode: fileMode,
      content: module.content,
    })),
  ];
  const parts = entries.flatMap((entry, index) => encode(entry, index + 1));
  parts.push(...encode({ name: "TRAILER!!!", mode: 0 }, 0));
  return Buffer.concat(parts);
}

function encode(entry: Entry, inode: number): Buffer[] {
  const name = Buffer.from(`${entry.name}\0`);
  const content = entry.content ?? new Uint8Array();
  const [major, minor] = entry.device ?? [0, 0];
  const links = 1;
  const fields = [inode, entry.mode, 0, 0, links, 0, content.length, 0, 0, major, minor, name.length, 0];
  const header = Buffer.from(`070701${fields.map((field) => field.toString(16).padStart(8, "0")).join("")}`);
  return [header, name, padding(header.length + name.length), Buffer.from(content), padding(content.length)];
}

/** newc aligns the header with its name, and the content, to 4 bytes. */
const padding = (length: number): Buffer => Buffer.alloc((4 - (length % 4)) % 4);
