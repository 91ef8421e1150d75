// A real terminal around a Nomad command: util-linux's `script` makes it, `stty` resizes it.
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Agent } from "./agent.ts";
import { runSuccessfully } from "./command.ts";
import { nomadPath } from "./environment.ts";
import { waitFor } from "./wait.ts";

export class Terminal implements AsyncDisposable {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #ended: Promise<number | undefined>;
  readonly #nameFile = join(tmpdir(), `lge2e-tty-${crypto.randomUUID()}`);
  #output = "";

  constructor(options: { agent: Agent; args: readonly string[] }) {
    const command = [nomadPath, ...options.args].map(quote).join(" ");
    const inside = `stty rows 24 cols 80; tty > ${quote(this.#nameFile)}; exec ${command}`;
    this.#child = spawn("script", ["-q", "-f", "-e", "-c", inside, "/dev/null"], {
      env: { ...process.env, NOMAD_ADDR: options.agent.address, SHELL: "/bin/sh" },
    });
    this.#child.stdout.on("data", (chunk: Buffer) => {
      this.#output += chunk.toString("utf8");
    });
    this.#child.stdin.on("error", () => {});
    this.#ended = new Promise((resolve) => {
      this.#child.once("close", (code) => resolve(code ?? undefined));
      this.#child.once("error", () => resolve(undefined));
    });
  }

  /** Everything that the terminal has shown. */
  get output(): string {
    return this.#output;
  }

  type(keys: string): void {
    this.#child.stdin.write(keys);
  }

  async resize(size: { rows: number; columns: number }): Promise<void> {
    const name = (await readFile(this.#nameFile, "utf8")).trim();
    await runSuccessfully({
      file: "stty",
      args: ["-F", name, "rows", `${size.rows}`, "cols", `${size.columns}`],
    });
  }

  async waitForOutput(pattern: RegExp, timeoutMs = 30_000): Promise<void> {
    await waitFor({
      what: `${pattern} on the terminal`,
      timeoutMs,
      attempt: () => pattern.test(this.#output) || undefined,
      seen: () => JSON.stringify(this.#output.slice(-1000)),
    });
  }

  /** Types the line again until the pattern shows: a resize takes time, and the shell may not have started yet. */
  async typeUntil(line: string, pattern: RegExp): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      this.type(`${line}\r`);
      try {
        await this.waitForOutput(pattern, 3_000);
        return;
      } catch (error) {
        if (attempt === 10) throw error;
      }
    }
  }

  /** The command's exit code. */
  async waitForEnd(timeoutMs = 30_000): Promise<number | undefined> {
    let ended: { code: number | undefined } | undefined;
    void this.#ended.then((code) => {
      ended = { code };
    });
    const { code } = await waitFor({
      what: "the terminal's command to end",
      timeoutMs,
      attempt: () => ended,
      seen: () => JSON.stringify(this.#output.slice(-1000)),
    });
    return code;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#ended;
    await rm(this.#nameFile, { force: true });
  }
}

function quote(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`;
}
