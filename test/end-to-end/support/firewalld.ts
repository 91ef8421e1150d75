// firewalld in this process's network namespace, on a bus and with a configuration of its own.
import { type ChildProcess, spawn } from "node:child_process";
import { accessSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { run } from "./command.ts";
import { waitFor } from "./wait.ts";

const program = "/usr/sbin/firewalld";

function find(): string | false {
  try {
    accessSync(program);
    return false;
  } catch {
    return `no ${program}`;
  }
}

/** The reason that firewalld can't run here, for node:test's `skip`. */
export const skipFirewalld: string | false = find();

const busConfiguration = (socket: string): string => `
  <!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
    "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
  <busconfig>
    <type>system</type>
    <listen>unix:path=${socket}</listen>
    <auth>EXTERNAL</auth>
    <policy context="default">
      <allow user="*"/>
      <allow own="*"/>
      <allow send_destination="*" eavesdrop="true"/>
      <allow eavesdrop="true"/>
    </policy>
  </busconfig>`;

export class Firewalld implements AsyncDisposable {
  readonly #directory: string;
  #children: ChildProcess[] = [];

  private constructor(directory: string) {
    this.#directory = directory;
  }

  /** Not started. */
  static async create(): Promise<Firewalld> {
    return new Firewalld(await mkdtemp(join(tmpdir(), "lgfw-")));
  }

  /** For programs that talk to it. */
  get env(): Record<string, string> {
    return { DBUS_SYSTEM_BUS_ADDRESS: `unix:path=${join(this.#directory, "bus")}` };
  }

  async start(): Promise<void> {
    const configuration = join(this.#directory, "bus.conf");
    const socket = join(this.#directory, "bus");
    await writeFile(configuration, busConfiguration(socket).trim());
    this.#spawn("dbus-daemon", [`--config-file=${configuration}`, "--nofork", "--nopidfile"]);
    await waitFor({ what: "the bus", timeoutMs: 20_000, attempt: () => exists(socket) });
    this.#spawn(program, [
      "--nofork",
      "--nopid",
      `--system-config=${join(this.#directory, "etc")}`,
      `--log-file=${join(this.#directory, "log")}`,
    ]);
    await waitFor({
      what: "firewalld",
      timeoutMs: 60_000,
      attempt: async () => (await this.#run(["--state"])).exitCode === 0 || undefined,
    });
  }

  /** Its output, without the last line's end. */
  async ask(...args: string[]): Promise<string> {
    const { stdout, stderr } = await this.#run(args);
    return `${stdout}${stderr}`.trim();
  }

  /** Ends firewalld, which removes its rules. */
  async stop(): Promise<void> {
    for (const child of this.#children.splice(0).toReversed()) {
      const ended = new Promise((resolve) => child.once("exit", resolve));
      if (child.exitCode === null && child.kill("SIGTERM")) await ended;
    }
    await rm(join(this.#directory, "bus"), { force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    await rm(this.#directory, { recursive: true });
  }

  #spawn(file: string, args: readonly string[]): void {
    this.#children.push(spawn(file, args, { stdio: "ignore", env: { ...process.env, ...this.env } }));
  }

  async #run(args: readonly string[]): Promise<Awaited<ReturnType<typeof run>>> {
    return await run({ file: "firewall-cmd", args, env: this.env });
  }
}

function exists(path: string): true | undefined {
  try {
    accessSync(path);
    return true;
  } catch {
    return undefined;
  }
}
