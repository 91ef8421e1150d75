// The parent's side of a pull worker: starts it confined (a user without rights, a mount namespace with one writable directory, a
// cgroup with a memory limit), answers its questions, and ends all of its processes.
import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { chown, mkdir, readdir, rmdir } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { StringDecoder } from "node:string_decoder";
import * as v from "valibot";
import { type CgroupHierarchies, createGroup, emptyGroup, oomKills, removeGroup } from "../system/cgroups.ts";
import { confined } from "../system/confine.ts";
import { printable } from "../system/error.ts";
import { exists } from "../system/files.ts";
import { isAlive, ownIdentity } from "../system/processes.ts";
import { PullOutOfMemoryError, PullWorkerFailedError, ReportedImageError } from "./errors.ts";
import type { Puller, PullHost, PullOptions } from "./pull-image.ts";
import { type PullAnswer, type PullLine, pullLineSchema } from "./pull-worker.ts";

export interface PullConfinement {
  readonly shimPath: string;
  /** User and group, nobody else's. */
  readonly uid: number;
  /** An empty directory of root's. */
  readonly emptyDirectory: string;
  /** The files of the program. */
  readonly programFiles: readonly string[];
  /** Undefined on a host without cgroups: then the memory has no limit. */
  readonly cgroups: { readonly hierarchies: CgroupHierarchies; readonly parent: string } | undefined;
  readonly memoryMib: number;
}

const maxStderrChars = 4096;
/** An image's configuration has 1 MiB at most; JSON may write a character as six. */
const maxLineChars = 16 << 20;
const maxProgressLines = 100;
const maxMessageChars = 8_192;
const cleanupTimeoutMs = 5_000;
/** Docker's default is 1024, and a VM's share follows its job's `cpu`. */
const cpuShares = 256;
/** The worker finds its scratch directory here. */
const scratchTarget = "/scratch";
/** Files of the host that name resolution and TLS read. */
const hostFiles = [
  ...["/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf"],
  ...["/etc/ssl", "/etc/pki", "/etc/ca-certificates"],
];
/** The agent's environment holds tokens of Nomad, Consul and Vault. */
const keptVariables = ["PATH", "NODE_EXTRA_CA_CERTS", "NODE_USE_SYSTEM_CA", "SSL_CERT_FILE", "SSL_CERT_DIR"];
const certificateVariables = ["NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "SSL_CERT_DIR"];

/** Below the store's directory: a mount point that stays empty. */
export function emptyRoot(storeDirectory: string): string {
  return join(storeDirectory, "root");
}

/** `command`: the program that runs the worker, with its arguments. Without `confinement` it has the caller's rights. */
export function childPuller(command: readonly [string, ...string[]], confinement: PullConfinement | undefined): Puller {
  return async (options) => {
    if (confinement === undefined) {
      await runWorker({ command, scratch: options.scratch, options });
      return;
    }
    await using group = await pullGroup(confinement);
    const confinedCommand = await confine(command, confinement, group.directories, options.scratch);
    const ranOut = (): PullOutOfMemoryError =>
      new PullOutOfMemoryError({ reference: options.order.reference, memoryMib: confinement.memoryMib });
    try {
      await runWorker({ command: confinedCommand, scratch: scratchTarget, options });
    } catch (error) {
      options.signal.throwIfAborted();
      const isHeap = error instanceof PullWorkerFailedError && /heap out of memory|heap limit/i.test(error.problem);
      if (isHeap || (await oomKills(group.directories)) > 0) throw ranOut();
      throw error;
    }
  };
}

/** At disposal it kills all that is left in it. */
async function pullGroup(
  confinement: PullConfinement,
): Promise<AsyncDisposable & { readonly directories: readonly string[] }> {
  const { cgroups, memoryMib } = confinement;
  if (cgroups === undefined) return { directories: [], [Symbol.asyncDispose]: async () => undefined };
  await removeStaleGroups(cgroups);
  const { pid, startTime } = await ownIdentity();
  const directories = await createGroup({
    ...cgroups,
    name: `pull-${pid}-${startTime}-${randomBytes(4).toString("hex")}`,
    // mksquashfs has two threads for each CPU.
    limits: { memoryBytes: memoryMib * 2 ** 20, cpuShares, pids: 256 + 4 * availableParallelism() },
  });
  return {
    directories,
    [Symbol.asyncDispose]: async () => {
      await emptyGroup({ directories, timeoutMs: cleanupTimeoutMs });
      await removeGroup({ directories, timeoutMs: cleanupTimeoutMs }).catch(() => undefined);
    },
  };
}

/** Those of drivers that were killed. Their pulls died with them. Never fails. */
async function removeStaleGroups({ hierarchies, parent }: NonNullable<PullConfinement["cgroups"]>): Promise<void> {
  for (const mount of new Set(Object.values(hierarchies.mounts))) {
    for (const name of await readdir(join(mount, parent)).catch(() => [])) {
      const [, pid, startTime = ""] = /^pull-(\d+)-(\d+)-/.exec(name) ?? [];
      if (pid === undefined || (await isAlive({ pid: Number(pid), startTime }))) continue;
      await rmdir(join(mount, parent, name)).catch(() => undefined);
    }
  }
}

async function confine(
  command: readonly [string, ...string[]],
  confinement: PullConfinement,
  cgroups: readonly string[],
  scratch: string,
): Promise<[string, ...string[]]> {
  const { shimPath, uid, emptyDirectory, programFiles } = confinement;
  await mkdir(emptyDirectory, { recursive: true, mode: 0o700 });
  await chown(scratch, uid, uid);
  const certificates = certificateVariables.flatMap((name) => process.env[name] ?? []);
  const wanted = [...hostFiles, ...certificates];
  const there = await Promise.all(wanted.map(exists));
  return confined({
    shimPath,
    confinement: {
      uid,
      gid: uid,
      cgroups,
      view: {
        kind: "root",
        directory: emptyDirectory,
        system: true,
        readOnly: [...programFiles, ...wanted.filter((_, index) => there[index])],
        writable: [{ source: scratch, target: scratchTarget }],
        devices: ["/dev/null"],
      },
      limits: { core: 0 },
      umask: 0o77,
    },
    argv: command,
  });
}

/** Fails with ReportedImageError, which has the worker's code and message, or with an error of the worker itself. */
async function runWorker(worker: {
  readonly command: readonly [string, ...string[]];
  /** As the worker sees it. */
  readonly scratch: string;
  readonly options: PullOptions;
}): Promise<void> {
  const { command, scratch, options } = worker;
  const { order, host, signal } = options;
  const { reference } = order;
  signal.throwIfAborted();
  const [file, ...args] = command;
  const env = Object.fromEntries(
    keptVariables.flatMap((name) => {
      const value = process.env[name];
      return value === undefined ? [] : [[name, value]];
    }),
  );
  const child = spawn(file, args, { detached: true, env, stdio: ["pipe", "pipe", "pipe"] });
  // The group: mksquashfs is the worker's child.
  const kill = (): void => killGroup(child);
  signal.addEventListener("abort", kill);
  let stderr = "";
  child.stderr.on("data", (chunk: Buffer) => {
    stderr = (stderr + chunk.toString("utf8")).slice(-maxStderrChars);
  });
  child.stdin.on("error", () => {});
  const ended = once(child, "close") as Promise<[number | null, NodeJS.Signals | null]>;
  const failedToStart = ended.catch((cause: unknown) => {
    throw new PullWorkerFailedError({ reference, problem: `can't be started: ${(cause as Error).message}`, cause });
  });
  failedToStart.catch(() => undefined);
  try {
    child.stdin.write(`${JSON.stringify({ scratch, order })}\n`);
    let end: PullLine | undefined;
    const listener = quiet(host);
    try {
      for await (const text of boundedLines(child.stdout)) {
        const line = v.parse(pullLineSchema, JSON.parse(text));
        if (line.kind === "done" || line.kind === "error") {
          end = line;
          // Something may keep a process alive that has nothing more to say.
          break;
        }
        const answer = await answerTo(line, listener);
        if (answer !== undefined) child.stdin.write(`${JSON.stringify(answer)}\n`);
      }
    } catch (error) {
      kill();
      throw error;
    }
    signal.throwIfAborted();
    if (end?.kind === "done") return;
    if (end?.kind === "error") {
      throw new ReportedImageError({ ...end, message: printable(end.message, maxMessageChars) });
    }
    const [code, endSignal] = await failedToStart;
    signal.throwIfAborted();
    const how = `ended (${endSignal ?? `exit status ${code}`}) without an answer ${stderr}`;
    throw new PullWorkerFailedError({ reference, problem: how.trim() });
  } finally {
    signal.removeEventListener("abort", kill);
    child.stdin.end();
    // No process of the worker's may write to the scratch directory while its files are taken over.
    kill();
    await ended.catch(() => undefined);
  }
}

async function answerTo(line: PullLine, host: PullHost): Promise<PullAnswer | undefined> {
  switch (line.kind) {
    case "progress":
      host.progress(line.message);
      return undefined;
    case "confirmed":
      host.confirmed({ usedCredentials: line.usedCredentials });
      return undefined;
    case "resolved": {
      const { fetch, prove, convert } = await host.resolved(line);
      return { kind: "plan", plan: { fetch: [...fetch], prove: [...prove], convert } };
    }
    case "fetched":
      await host.fetched(line.layers);
      return { kind: "taken" };
    default:
      return undefined;
  }
}

/** The host, which hears only so much progress. */
function quiet(host: PullHost): PullHost {
  let told = 0;
  return {
    progress: (message) => {
      told++;
      if (told <= maxProgressLines) host.progress(printable(message, 1_000));
    },
    confirmed: (facts) => host.confirmed(facts),
    resolved: (facts) => host.resolved(facts),
    fetched: (layers) => host.fetched(layers),
  };
}

async function* boundedLines(source: AsyncIterable<Buffer>): AsyncGenerator<string> {
  let rest = "";
  const decoder = new StringDecoder("utf8");
  for await (const chunk of source) {
    const lines = (rest + decoder.write(chunk)).split("\n");
    rest = lines.pop() ?? "";
    if (rest.length > maxLineChars) throw new Error("the pull process wrote too much");
    yield* lines;
  }
}

function killGroup(child: ChildProcess): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, "SIGKILL");
  } catch {
    // It has ended.
  }
}
