// Firecracker, configured through its API socket: errors are exact there, while a configuration file's surface only as exit
// code 152. The serial console goes to the process's stdout, which the supervisor keeps bounded.
import { join } from "node:path";
import { exists } from "../../system/files.ts";
import { isListening } from "../../system/sockets.ts";
import { pollUntil } from "../../system/wait.ts";
import { ApiSocketMissingError } from "../errors.ts";
import { driveMounts, makeDrivePlaces } from "../host-drives.ts";
import type { LaunchPlan, VmConfig, Vmm } from "../vmm.ts";
import { FirecrackerApi } from "./api-client.ts";
import { bootRequests, startRequest } from "./boot-requests.ts";
import { Jail } from "./jail.ts";

export interface FirecrackerVmmOptions {
  readonly firecrackerPath: string;
  readonly version: string;
  /** Without it VMs are not jailed. */
  readonly jailerPath?: string | undefined;
}

/** By the wall clock, a thousand times as long as on an idle host. */
const socketTimeoutMs = 30_000;
/** For all calls together; the last one reads the kernel. */
const answersTimeoutMs = 60_000;

export class FirecrackerVmm implements Vmm {
  readonly kind = "firecracker";
  readonly acceleration = "kvm";
  readonly opensTaps = true;
  readonly version: string;
  readonly #options: FirecrackerVmmOptions;

  constructor(options: FirecrackerVmmOptions) {
    this.#options = options;
    this.version = options.version;
  }

  get jailed(): boolean {
    return this.#options.jailerPath !== undefined;
  }

  /**
   * Firecracker itself takes some 5 MiB, and the page tables of both sides up to 4 MiB a GiB. The rest is for the cache
   * of its disks.
   */
  overheadMib(memSizeMib: number): number {
    return 64 + Math.ceil(memSizeMib / 64);
  }

  plan(config: VmConfig): LaunchPlan {
    const apiPath = apiSocketPath(config);
    const jail = this.#jail(config);
    return {
      vsockPath: vsockPath(config),
      startedPath: jail?.startedPath,
      processes: [
        {
          name: "vmm",
          outputPath: join(config.directory, "vmm.log"),
          ownTaps: (config.networkInterfaces ?? []).map(({ tap, tapMac, mtu }) => ({
            tap,
            tapMac,
            mtu,
            user: config.user,
          })),
          ...(jail === undefined
            ? {
                argv: [this.#options.firecrackerPath, "--api-sock", apiPath, "--id", config.id],
                namespaces: ["net", "ipc", "uts", "cgroup"],
                drives: driveMounts(config),
              }
            : {
                argv: jail.argv(apiPath),
                namespaces: ["pid", "net", "ipc", "uts", "cgroup"],
                binds: jail.binds(),
                drives: jail.drives(),
              }),
        },
      ],
    };
  }

  /** Fails with JailError. */
  async prepare(config: VmConfig): Promise<void> {
    const jail = this.#jail(config);
    if (jail === undefined) await makeDrivePlaces(driveMounts(config));
    else await jail.prepare({ sockets: sockets(config) });
  }

  /** Fails with ApiSocketMissingError, FirecrackerApiError or JailError. */
  async configure(options: { config: VmConfig; signal: AbortSignal }): Promise<void> {
    const { config, signal } = options;
    const jail = this.#jail(config);
    await waitForSocket({
      path: apiSocketPath(config),
      directory: jail?.root ?? config.directory,
      signal,
    });
    using api = connect(config);
    const vmmPath = (path: string): string => jail?.inside(path) ?? path;
    const { lanes } = bootRequests({ config, vsockPath: vsockPath(config), vmmPath });
    await api.sendLanes(lanes, { signal });
    await jail?.seal(sockets(config));
  }

  /** Fails with FirecrackerApiError. */
  async start(options: { config: VmConfig; signal: AbortSignal }): Promise<void> {
    using api = connect(options.config);
    await api.send(startRequest, { signal: options.signal });
  }

  #jail(config: VmConfig): Jail | undefined {
    const { firecrackerPath, jailerPath } = this.#options;
    if (jailerPath === undefined) return undefined;
    if (config.user === undefined) throw new TypeError("a jailed VM needs a user");
    return new Jail({ config, programs: { firecrackerPath, jailerPath }, user: config.user });
  }
}

/**
 * Firecracker makes the socket some milliseconds after it starts, and listens right after that. `signal` aborts at its
 * death.
 */
async function waitForSocket(options: {
  path: string;
  /** The socket itself appears in it. */
  directory: string;
  signal: AbortSignal;
}): Promise<void> {
  const { path, directory, signal } = options;
  const wait = {
    timeoutMs: socketTimeoutMs,
    onTimeout: () => new ApiSocketMissingError({ path, timeoutMs: socketTimeoutMs }),
    signal,
  };
  await pollUntil({ ...wait, directory, intervalMs: 100, attempt: async () => (await exists(path)) || undefined });
  await pollUntil({ ...wait, intervalMs: 1, attempt: async () => (await isListening(path)) || undefined });
}

const connect = (config: VmConfig): FirecrackerApi =>
  new FirecrackerApi({ socketPath: apiSocketPath(config), timeoutMs: answersTimeoutMs });

const apiSocketPath = (config: VmConfig): string => join(config.directory, "api.sock");
const vsockPath = (config: VmConfig): string => join(config.directory, "v.sock");
const sockets = (config: VmConfig): string[] => [apiSocketPath(config), ...(config.vsock ? [vsockPath(config)] : [])];
