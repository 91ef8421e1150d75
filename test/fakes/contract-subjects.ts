// The subjects of the contract tests: the fake or the real Firecracker, and files that both accept.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isListening } from "../../src/system/sockets.ts";
import { pollUntil } from "../../src/system/wait.ts";
import { FirecrackerApi } from "../../src/vmm/firecracker/api-client.ts";
import type { VmConfig } from "../../src/vmm/vmm.ts";
import { FakeFirecracker } from "./fake-firecracker.ts";

export interface Subject extends AsyncDisposable {
  readonly api: FirecrackerApi;
  readonly directory: string;
  /** Absent for the real one. */
  readonly fake?: FakeFirecracker;
}

/** Generous, since tests of other files run at the same time. */
const answersTimeoutMs = 60_000;

export async function startFake(): Promise<Subject> {
  const directory = await mkdtemp(join(tmpdir(), "litegix-contract-"));
  const socketPath = join(directory, "api.sock");
  const fake = await FakeFirecracker.start({ socketPath, id: "contract" });
  const api = new FirecrackerApi({ socketPath, timeoutMs: answersTimeoutMs });
  return {
    api,
    directory,
    fake,
    async [Symbol.asyncDispose]() {
      api[Symbol.dispose]();
      await fake[Symbol.asyncDispose]();
      await rm(directory, { recursive: true });
    },
  };
}

const firecrackerPath = process.env["FIRECRACKER"] ?? "firecracker";
export const realVersion = /v(\d+\.\d+\.\d+)/.exec(
  spawnSync(firecrackerPath, ["--version"]).stdout?.toString() ?? "",
)?.[1];

export async function startReal(): Promise<Subject> {
  const directory = await mkdtemp(join(tmpdir(), "litegix-contract-"));
  const socketPath = join(directory, "api.sock");
  const child: ChildProcess = spawn(firecrackerPath, ["--api-sock", socketPath, "--id", "contract"], {
    stdio: "ignore",
  });
  const ended = once(child, "exit");
  await pollUntil({
    attempt: async () => ((await isListening(socketPath)) ? true : undefined),
    intervalMs: 5,
    timeoutMs: answersTimeoutMs,
    onTimeout: () => new Error("Firecracker made no API socket"),
  });
  const api = new FirecrackerApi({ socketPath, timeoutMs: answersTimeoutMs });
  return {
    api,
    directory,
    async [Symbol.asyncDispose]() {
      api[Symbol.dispose]();
      child.kill("SIGKILL");
      await ended;
      await rm(directory, { recursive: true });
    },
  };
}

/** The smallest "kernel": an ELF file whose only segment, at 1 MiB, halts for ever. */
function haltingKernel(): Buffer<ArrayBuffer> {
  const elf = Buffer.alloc(4096);
  const entry = 0x100_000n;
  Buffer.from([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]).copy(elf);
  elf.writeUInt16LE(2, 16); // ET_EXEC
  elf.writeUInt16LE(62, 18); // EM_X86_64
  elf.writeUInt32LE(1, 20);
  elf.writeBigUInt64LE(entry, 24);
  elf.writeBigUInt64LE(64n, 32); // program headers
  elf.writeUInt16LE(64, 52);
  elf.writeUInt16LE(56, 54);
  elf.writeUInt16LE(1, 56);
  elf.writeUInt32LE(1, 64); // PT_LOAD
  elf.writeUInt32LE(5, 68);
  elf.writeBigUInt64LE(0x100n, 72); // offset
  elf.writeBigUInt64LE(entry, 80);
  elf.writeBigUInt64LE(entry, 88);
  elf.writeBigUInt64LE(16n, 96);
  elf.writeBigUInt64LE(16n, 104);
  Buffer.from([0xf4, 0xeb, 0xfd]).copy(elf, 0x100); // hlt; jmp -3
  return elf;
}

export async function vmConfig(directory: string): Promise<VmConfig> {
  const file = async (name: string, content = Buffer.alloc(4096)): Promise<string> => {
    const path = join(directory, name);
    await writeFile(path, content);
    return path;
  };
  return {
    id: "contract",
    directory,
    spec: {
      vcpuCount: 2,
      memSizeMib: 256,
      vmlinuxPath: await file("vmlinux", haltingKernel()),
      initramfsPath: await file("initramfs"),
      kernelArguments: ["quiet"],
      options: {},
    },
    vsock: true,
    drives: [
      { path: await file("image"), readOnly: true },
      { path: await file("scratch"), readOnly: false },
    ],
  };
}
