// Reports when other software removes the driver's nftables tables in its own network namespace (`nft flush ruleset`, a firewall
// that reloads). Until the rules are back, nothing holds a guest to its own addresses and its policy.
import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";

/** The kernel kills it when the driver dies, for whatever reason. */
const argv = ["--pdeathsig", "KILL", "--", "nft", "monitor", "destroy", "tables"] as const;

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
      if (line.includes(" litegix_")) this.#tell();
    });
    this.#child = child;
  }

  /** Resolves when a table of a litegix driver is removed after this call. To miss none: take it, look, then wait. */
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
