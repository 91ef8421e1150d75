// Tells when somebody takes tables of nftables away in the driver's own network namespace (`nft flush ruleset`, a firewall that
// loads its rules anew): until our rules are back a guest is not held to its own addresses nor to its policy.
import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";

/** The kernel ends it with the driver, however that dies. */
const argv = ["--pdeathsig", "KILL", "--", "nft", "monitor", "destroy", "tables"] as const;

export class TableWatch implements Disposable {
  #child: ChildProcess | undefined;
  #next = Promise.withResolvers<void>();

  /** Where the watching program is missing or has ended: starts it (again). One that can't be had tells nothing. */
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

  /** Resolves when a table of this driver's kind has gone, from now on. To miss none: take it, look, then wait. */
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
