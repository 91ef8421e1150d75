// A Nomad agent of a test's own, server and client in one: free ports on loopback, directories of its own, our plugin.
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { chmod, chown, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { type CommandResult, run } from "./command.ts";
import { driverPath, findFirecracker, kernelDirectory, nomadPath, vmm } from "./environment.ts";
import { freePorts } from "./ports.ts";
import { listProcesses, type SeenProcess, waitUntilGone } from "./processes.ts";
import { waitFor } from "./wait.ts";

export const driverName = "litegix-fc-driver";

export interface AgentOptions {
  /** HCL lines of the plugin's config block, after base path and VMM. */
  readonly pluginConfig?: string;
  /** Default: the VMM of this test run. */
  readonly vmm?: string;
  /** Whether a guest kernel lies where the driver looks, or a kernel's modules alone. Default: yes. */
  readonly kernel?: boolean | "modules";
  readonly env?: Readonly<Record<string, string>>;
  /** The client's ports have this interface's address. Default: lo. */
  readonly networkInterface?: string;
  /** How often Nomad asks for the tasks' figures. Default: Nomad's own, every second. */
  readonly statsInterval?: string;
  /** CNI configuration lists by their names: `mode = "cni/NAME"`. */
  readonly cniNetworks?: Readonly<Record<string, object>>;
  /** HCL lines of the agent's own. */
  readonly agentConfig?: string;
  /** HCL lines of the agent's client block. */
  readonly clientConfig?: string;
  /** Directories that are empty for the agent and its driver, in a mount namespace of theirs. Default: none. */
  readonly hidden?: readonly string[];
  /** The base path is an ext4 of its own of this size. Default: a directory beside the agent's. */
  readonly baseDiskMib?: number;
  /** The base path's owner. Default: root. */
  readonly baseOwner?: number;
  /** Whether Nomad's raw_exec runs too, for comparisons. */
  readonly rawExec?: boolean;
}

export interface DriverInfo {
  readonly Detected: boolean;
  readonly Healthy: boolean;
  readonly HealthDescription: string;
  readonly Attributes: Readonly<Record<string, string>> | null;
}

export class Agent implements AsyncDisposable {
  readonly directory: string;
  readonly basePath: string;
  readonly address: string;
  readonly #options: AgentOptions;
  #process: ChildProcess | undefined;

  private constructor(directory: string, httpPort: number, options: AgentOptions) {
    this.directory = directory;
    this.basePath = join(directory, "base");
    this.address = `http://127.0.0.1:${httpPort}`;
    this.#options = options;
  }

  /** Resolves when the agent answers and the driver has reported its health. */
  static async start(options: AgentOptions = {}): Promise<Agent> {
    // Short: unix sockets of VMs lie below it.
    const directory = await mkdtemp(join(tmpdir(), "lge2e-"));
    // Tasks of other drivers run as nobody, from below it.
    await chmod(directory, 0o711);
    const [http = 0, rpc = 0, serf = 0] = await freePorts(3);
    const agent = new Agent(directory, http, options);
    if (options.baseDiskMib !== undefined) await agent.#mountBase(options.baseDiskMib);
    for (const name of ["data", "plugins", "base/kernels"]) await mkdir(join(directory, name), { recursive: true });
    await symlink(driverPath, join(directory, "plugins", driverName));
    const kernel = join(agent.basePath, "kernels", basename(kernelDirectory));
    if (options.kernel === "modules") {
      await mkdir(kernel);
      await symlink(join(kernelDirectory, "lib"), join(kernel, "lib"));
    } else if (options.kernel !== false) await symlink(kernelDirectory, kernel);
    if (options.baseOwner !== undefined) await chown(agent.basePath, options.baseOwner, options.baseOwner);
    await mkdir(join(directory, "cni"));
    for (const [name, list] of Object.entries(options.cniNetworks ?? {})) {
      await writeFile(join(directory, "cni", `${name}.conflist`), JSON.stringify(list));
    }
    await writeFile(join(directory, "agent.hcl"), agent.#configuration({ http, rpc, serf }));
    await agent.launch();
    return agent;
  }

  async #mountBase(sizeMib: number): Promise<void> {
    const image = join(this.directory, "base.ext4");
    await mkdir(this.basePath);
    const script = 'truncate -s "$1" "$2" && mkfs.ext4 -q "$2" && mount -o loop "$2" "$3"';
    const made = await run({ file: "sh", args: ["-c", script, "sh", `${sizeMib}M`, image, this.basePath] });
    if (made.exitCode !== 0) throw new Error(`the base path's file system: ${made.stderr}`);
  }

  #configuration(ports: { http: number; rpc: number; serf: number }): string {
    const firecracker = findFirecracker();
    const jailer = process.env["JAILER"] ?? "";
    const pluginConfig = this.#options.pluginConfig ?? "";
    // A test about the kernel brings its own, or none.
    const ownKernel = this.#options.kernel === false || pluginConfig.includes("vmlinux_path");
    const vmlinux = ownKernel ? "" : (process.env["LITEGIX_E2E_VMLINUX"] ?? "");
    return `
      data_dir   = "${this.directory}/data"
      plugin_dir = "${this.directory}/plugins"
      bind_addr  = "127.0.0.1"
      log_level  = "DEBUG"
      advertise {
        http = "127.0.0.1"
        rpc  = "127.0.0.1"
        serf = "127.0.0.1"
      }
      ports {
        http = ${ports.http}
        rpc  = ${ports.rpc}
        serf = ${ports.serf}
      }
      server {
        enabled          = true
        bootstrap_expect = 1
        raft_multiplier  = 1
      }
      client {
        enabled           = true
        network_interface = "${this.#options.networkInterface ?? "lo"}"
        cni_path          = "/usr/lib/cni"
        cni_config_dir    = "${this.directory}/cni"
        options           = { "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean" }
        ${this.#options.clientConfig ?? ""}
      }
      telemetry {
        publish_allocation_metrics = true
        collection_interval        = "${this.#options.statsInterval ?? "1s"}"
      }
      ${this.#options.agentConfig ?? ""}
      ${this.#options.rawExec === true ? 'plugin "raw_exec" {\n config {\n enabled = true\n }\n }' : ""}
      plugin "${driverName}" {
        config {
          rootfs_base_path = "${this.basePath}"
          vmm              = "${this.#options.vmm ?? vmm}"
          ${firecracker === undefined ? "" : `firecracker_path = "${firecracker}"`}
          ${jailer === "" ? "" : `jailer_path = "${jailer}"`}
          ${vmlinux === "" ? "" : `vmlinux_path = "${vmlinux}"`}
          ${pluginConfig}
        }
      }
    `;
  }

  /** Starts the process: the first time, and again after `kill` or `interrupt`. */
  async launch(): Promise<void> {
    const log = openSync(join(this.directory, "agent.log"), "a");
    const agent = [nomadPath, "agent", "-config", join(this.directory, "agent.hcl")];
    const hide = (this.#options.hidden ?? []).map((path) => `mount -t tmpfs none ${path} && `).join("");
    // One process after the other takes this one's place: its id is the agent's.
    const [file = "", ...args] =
      hide === "" ? agent : ["unshare", "--mount", "/bin/sh", "-c", `${hide}exec "$0" "$@"`, ...agent];
    const child = spawn(file, args, {
      stdio: ["ignore", log, log],
      detached: true,
      env: { ...process.env, ...this.#options.env },
    });
    closeSync(log);
    this.#process = child;
    await waitFor({
      what: "the agent and its driver's fingerprint",
      timeoutMs: 300_000,
      attempt: async () => {
        if (child.exitCode !== null) throw new Error(`the agent ended: ${(await this.log()).slice(-2000)}`);
        return (await this.driverInfo().catch(() => undefined)) === undefined ? undefined : true;
      },
      seen: async () => (await this.log()).slice(-2000),
    });
  }

  get pid(): number {
    const pid = this.#process?.pid;
    if (pid === undefined) throw new Error("the agent does not run");
    return pid;
  }

  async log(): Promise<string> {
    return await readFile(join(this.directory, "agent.log"), "utf8");
  }

  /** GET of Nomad's HTTP API. */
  async get(path: string): Promise<unknown> {
    return await (await this.#fetch(path)).json();
  }

  async getText(path: string): Promise<string> {
    return await (await this.#fetch(path)).text();
  }

  async #fetch(path: string): Promise<Response> {
    const response = await fetch(`${this.address}${path}`, { signal: AbortSignal.timeout(20_000) });
    if (!response.ok) throw new Error(`GET ${path}: ${response.status} ${await response.text()}`);
    return response;
  }

  async nomad(args: readonly string[], options: { stdin?: string; timeoutMs?: number } = {}): Promise<CommandResult> {
    return await run({ file: nomadPath, args, env: { NOMAD_ADDR: this.address }, ...options });
  }

  /** The node as its own client reports it; undefined until the driver has sent a fingerprint. */
  async node(): Promise<{ Attributes: Record<string, string>; Drivers: Record<string, DriverInfo>; Status: string }> {
    const [stub] = (await this.get("/v1/nodes")) as { ID: string }[];
    if (stub === undefined) throw new Error("no node yet");
    return (await this.get(`/v1/node/${stub.ID}`)) as Awaited<ReturnType<Agent["node"]>>;
  }

  /** Undefined until the node is ready and its driver has reported its own state, not the first "being looked at". */
  async driverInfo(): Promise<DriverInfo | undefined> {
    const node = await this.node();
    const info = node.Drivers[driverName];
    if (node.Status !== "ready" || info === undefined) return undefined;
    return info.HealthDescription === "" ? undefined : info;
  }

  /** The long-lived plugin process. The throwaway ones of an agent's start have ended by the time it exists. */
  async plugin(): Promise<SeenProcess> {
    return await waitFor({
      what: "the plugin's process",
      timeoutMs: 30_000,
      attempt: async () =>
        (await listProcesses()).find(
          (process) => process.commandLine === join(this.directory, "plugins", driverName) && process.pid !== this.pid,
        ),
    });
  }

  /** As a crash would: kill -9. The plugin lives on. */
  async kill(): Promise<void> {
    process.kill(this.pid, "SIGKILL");
    await waitUntilGone({ pid: this.pid, timeoutMs: 10_000 });
  }

  /** As an operator would. The agent ends its plugin; tasks live on. */
  async interrupt(): Promise<void> {
    process.kill(this.pid, "SIGINT");
    await waitUntilGone({ pid: this.pid, timeoutMs: 60_000 });
  }

  /** Stops all jobs, ends the agent, removes its directory. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.#stopJobs();
    } finally {
      await this.interrupt().catch(() => this.kill());
      for (const { pid } of await this.#machineProcesses()) process.kill(pid, "SIGKILL");
      await this.#unmount();
      if (process.env["LITEGIX_E2E_KEEP"] === undefined) await rm(this.directory, { recursive: true, force: true });
      else console.log(`kept: ${this.directory}`);
    }
  }

  async #stopJobs(): Promise<void> {
    const jobs = (await this.get("/v1/jobs")) as { ID: string; Stop: boolean }[];
    await Promise.all(jobs.map((job) => this.nomad(["job", "stop", "-detach", "-purge", "-yes", job.ID])));
    await waitFor({
      what: "all allocations to end",
      timeoutMs: 60_000,
      attempt: async () => {
        const allocations = (await this.get("/v1/allocations")) as { ClientStatus: string }[];
        return allocations.every(({ ClientStatus }) => !["pending", "running"].includes(ClientStatus)) || undefined;
      },
    });
    // Nomad destroys their VMs a moment later. An agent that ends before leaves that to its next start, which never
    // comes.
    const machines = join(this.basePath, "vms");
    await waitFor({
      what: "all VMs to be destroyed",
      timeoutMs: 30_000,
      attempt: async () => (await readdir(machines).catch(() => [])).length === 0 || undefined,
    }).catch(() => undefined);
  }

  /** Supervisors and VMMs. */
  async #machineProcesses(): Promise<SeenProcess[]> {
    const machines = join(this.basePath, "vms");
    return (await listProcesses()).filter(({ commandLine }) => commandLine.includes(machines));
  }

  /** The secrets directories of allocations are tmpfs mounts until Nomad collects them. */
  async #unmount(): Promise<void> {
    const mounts = (await readFile("/proc/mounts", "utf8"))
      .split("\n")
      .map((line) => line.split(" ")[1] ?? "")
      .filter((path) => path.startsWith(`${this.directory}/`));
    for (const path of mounts) await run({ file: "umount", args: ["-l", path] });
  }
}
