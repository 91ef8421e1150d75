// The end of a VM's logs, for the sentence about its end.
import { open } from "node:fs/promises";
import { printable } from "../system/error.ts";

/** The file's last `maxBytes`; empty if there is no file. */
export async function fileEnd(path: string, maxBytes: number): Promise<string> {
  try {
    const file = await open(path);
    try {
      const { size } = await file.stat();
      const length = Math.min(size, maxBytes);
      const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, size - length);
      return buffer.toString("utf8", 0, bytesRead);
    } finally {
      await file.close();
    }
  } catch {
    return "";
  }
}

const quotedBytes = 32 * 1024;
const consoleLength = 400;
const vmmLength = 250;
/** Firecracker's own lines in between the guest's: "2026-01-31T10:00:00.123456789 [id:thread] ...". */
const vmmLine = /^\d{4}-\d\d-\d\dT[\d:.]+ \[[^\]]*\] /;

/** The last lines of a VM's output, made fit for one line: the console's, and the VMM's own behind them. */
export async function lastOutput(path: string): Promise<string> {
  const lines = (await fileEnd(path, quotedBytes)).split(/[\r\n]+/).filter((line) => line.trim() !== "");
  const console = quote(lines.filter((line) => !vmmLine.test(line)).join(" | "), consoleLength);
  // Without the time and thread, which would push out the line with the reason: that comes before the farewells.
  const own = lines.filter((line) => vmmLine.test(line)).map((line) => line.replace(vmmLine, ""));
  const vmm = quote(own.join(" | "), vmmLength);
  return [console, ...(vmm === "" ? [] : [`VMM log: ${vmm}`])].filter((text) => text !== "").join("; ");
}

const quote = (text: string, length: number): string => printable(text.slice(-length), length);
