// Reports when other software removes the driver's nftables tables, or rules of them, in its own network namespace (`nft flush
// ruleset`, a firewall that reloads). Until the rules are back, the guests have no network.
import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";

/** The kernel kills it when the driver dies, for whatever reason. */
const argv = ["--pdeathsig", "KILL", "--", "nft", "monitor", "destroy"] as const;

export class TableWatch implements Disposable {
  #child: ChildProcess | undefined;
  #next = Promise.withResolvers<void>();

  /** Starts the watching program unless it runs. If the program is missing, the watch reports nothing. */
  ensure(): void {
    if (this.#child !== undefined) return;
    const child = spawn("setpriv", [...argv], { stdio: ["ignore", "pipe", "ignore"] });
    const ended = (): void => {
      if (this.#child === child) this.#child = undefined;
    };
    child.once("error", ended);
    child.once("exit", ended);
    createInterface({ input: child.stdout }).on("line", (line) => {
      // Rules of VMs that start or end are removed too; the look that follows finds nothing to do.
      if (/^delete (?:table|rule) .*\blitegix_/.test(line)) this.#tell();
    });
    this.#child = child;
  }

  /** Resolves when a table of a litegix driver, or a rule of one, is removed after this call. To miss none: take it, look, then wait. */
  get next(): Promise<void> {
    return this.#next.promise;
  }

  [Symbol.dispose](): void {
    this.#child?.kill("SIGKILL");
  }

  #tell(): void {
    this.#next.resolve();
    this.#next = Promise.withResolvers();
  }
}
