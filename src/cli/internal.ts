// The driver runs these commands itself: a child of the same executable does heavy work, so that the plugin's event loop
// answers Nomad within milliseconds at all times.
import { Command } from "commander";
import { runPullWorker } from "../images/pull-worker.ts";

export function internalCommands(): Command {
  const internal = new Command("internal").description("commands that the driver runs itself");
  internal
    .command("pull")
    .description("pull and convert an image; the request comes as JSON on standard input")
    .action(async () => {
      const stop = new AbortController();
      process.once("SIGTERM", () => stop.abort(new Error("SIGTERM stopped the pull")));
      process.exitCode = await runPullWorker({ input: process.stdin, output: process.stdout, signal: stop.signal });
    });
  return internal;
}
