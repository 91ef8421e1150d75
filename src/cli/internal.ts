// The driver runs these commands itself: a child of the same executable does heavy work, so that the plugin's event loop
// answers Nomad within milliseconds at all times.
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { Command } from "commander";
import * as v from "valibot";
import { childPuller, emptyRoot } from "../images/pull-in-child.ts";
import { runPullWorker } from "../images/pull-worker.ts";
import { credentialsSchema } from "../images/registry/authenticator.ts";
import { registryConfigsSchema } from "../images/registry/endpoint.ts";
import { registryRulesSchema } from "../images/registry/registry-policy.ts";
import { ImageStore } from "../images/store/image-store.ts";
import { installAsset, selfCommand, selfFiles } from "../system/assets.ts";
import { findCgroups } from "../system/cgroups.ts";

const pullRequestSchema = v.object({
  directory: v.string(),
  registries: registryConfigsSchema,
  rules: v.optional(registryRulesSchema),
  reference: v.string(),
  forcePull: v.optional(v.boolean(), false),
  credentials: v.optional(credentialsSchema),
  uid: v.optional(v.number(), 79_999),
  parentCgroup: v.optional(v.string(), "litegix-fc-driver"),
  memoryMib: v.optional(v.number(), 2_048),
});

export function internalCommands(): Command {
  const internal = new Command("internal").description("commands that the driver runs itself");
  internal
    .command("pull")
    .description("pull an image into a store, as the driver does; the request comes as JSON on standard input")
    .action(async () => {
      const request = v.parse(pullRequestSchema, JSON.parse(await text(process.stdin)));
      const { directory, uid, parentCgroup, memoryMib } = request;
      const hierarchies = await findCgroups();
      const puller = childPuller(pullWorkerCommand(), {
        shimPath: await installAsset({ name: "litegix-shim", directory: join(directory, "bin") }),
        uid,
        emptyDirectory: emptyRoot(directory),
        programFiles: selfFiles(),
        cgroups: hierarchies && { hierarchies, parent: parentCgroup },
        memoryMib,
      });
      const { registries, rules, ...image } = request;
      const store = new ImageStore({ directory, registries, puller, ...(rules === undefined ? {} : { rules }) });
      const resolved = await store.ensure({ ...image, signal: new AbortController().signal });
      process.stdout.write(`${JSON.stringify(resolved)}\n`);
    });
  internal
    .command("pull-worker")
    .description("the part of a pull that needs no rights; its order and its host's answers come as lines of JSON")
    .action(async () => {
      const stop = new AbortController();
      process.once("SIGTERM", () => stop.abort(new Error("SIGTERM stopped the pull")));
      process.exitCode = await runPullWorker({ input: process.stdin, output: process.stdout, signal: stop.signal });
    });
  return internal;
}

function pullWorkerCommand(): [string, ...string[]] {
  return [...selfCommand(), "internal", "pull-worker"];
}
