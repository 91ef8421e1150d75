// Finds QEMU and what it needs, and says which version it is.
import { readFile } from "node:fs/promises";
import { findTrustedProgram } from "../../system/processes.ts";
import { runCommand } from "../../system/run-command.ts";
import { VmmMissingError } from "../errors.ts";

export interface FoundQemu {
  /** Absolute, without links. */
  readonly path: string;
  readonly version: string;
}

/** Fails with VmmMissingError or UntrustedPathError. */
export async function findQemu(options: {
  path: string | undefined;
  signal?: AbortSignal | undefined;
}): Promise<FoundQemu> {
  const wanted = options.path ?? "qemu-system-x86_64";
  try {
    const path = await findTrustedProgram(wanted);
    if (path === undefined) throw new Error("there is no such program");
    const output = await runCommand({ file: path, args: ["--version"], timeoutMs: 60_000, signal: options.signal });
    const version = /version (\d+\.\d+(?:\.\d+)?)/.exec(output.stdout)?.[1];
    if (version === undefined) throw new Error("it prints no version");
    return { path, version };
  } catch (error) {
    throw new VmmMissingError({
      program: "QEMU",
      path: wanted,
      cure: "install Debian's qemu-system-x86, or set qemu_path",
      cause: error,
    });
  }
}

/** The rate of the host's time stamp counter in kHz, from /proc/cpuinfo (Linux prints the TSC rate as "cpu MHz" on VMs). */
export async function readTscKhz(): Promise<number> {
  const text = await readFile("/proc/cpuinfo", "utf8");
  const mhz = Number(/^cpu MHz\s*:\s*([\d.]+)/m.exec(text)?.[1] ?? "0");
  return Math.round(mhz * 1000);
}
