// A job's own initrd, which the kernel unpacks over ours: the kernel takes any number of archives one after the other
// (Documentation/driver-api/early-userspace/buffer-format.rst), each compressed in its own way.
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { ensureContent } from "../system/files.ts";
import type { HostFile } from "../system/host-file.ts";
import { describeFile } from "./describe-file.ts";
import { InitrdError } from "./errors.ts";

const maxBytes = 256 * 1024 * 1024;

/** Returns the path of both together, cached by content. Fails with InitrdError. */
export async function appendInitrd(options: {
  initramfsPath: string;
  initrd: HostFile;
  cacheDirectory: string;
}): Promise<string> {
  const { initrd, cacheDirectory } = options;
  const { size } = initrd.facts;
  if (size > maxBytes)
    throw new InitrdError({ path: initrd.path, reason: `it has ${size} bytes; the limit is ${maxBytes}` });
  const [own, extra] = await Promise.all([readFile(options.initramfsPath), initrd.read(maxBytes)]);
  const kind = describeFile(extra);
  if (!kind.archive) throw new InitrdError({ path: initrd.path, reason: `it is ${kind.name}` });
  const hash = createHash("sha256").update(own).update(extra).digest("hex").slice(0, 16);
  const path = join(cacheDirectory, `initramfs-${hash}.cpio`);
  await ensureContent({ path, content: Buffer.concat([own, extra]), mode: 0o644 });
  return path;
}
