// CNI's CHECK of an allocation's network, asked of the plugins themselves: Nomad asks only those of version 1.3.0 and later.
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Allocation } from "./allocation.ts";
import { run } from "./command.ts";

/** Nomad's CNI library keeps the plugins' results here. */
const results = "/var/lib/cni/results";
const plugins = "/usr/lib/cni";
/** This plugin looks into the namespace. portmap 1.1 would find fault with its own rules if asked about IPv6. */
const asked = "bridge";

interface CachedResult {
  /** Base64. */
  readonly config: string;
  readonly ifName: string;
  readonly networkName: string;
  readonly netns: string;
  readonly capabilityArgs: object;
  readonly result: object;
}

interface ConfigurationList {
  readonly cniVersion: string;
  readonly plugins: readonly { readonly type: string }[];
}

/** The plugins' complaints; empty if everything is as they left it. */
export async function cniCheck(allocation: Allocation): Promise<string[]> {
  const name = (await readdir(results)).find((file) => file.includes(allocation.id));
  if (name === undefined) throw new Error(`no CNI result of allocation ${allocation.id} in ${results}`);
  const cached = JSON.parse(await readFile(join(results, name), "utf8")) as CachedResult;
  const list = JSON.parse(Buffer.from(cached.config, "base64").toString("utf8")) as ConfigurationList;
  const chosen = list.plugins.filter(({ type }) => type === asked);
  if (chosen.length === 0) throw new Error(`no plugin ${asked} in ${name}`);
  const found: string[] = [];
  for (const plugin of chosen) {
    const { stdout, stderr, exitCode } = await run({
      file: join(plugins, plugin.type),
      args: [],
      stdin: JSON.stringify({
        ...plugin,
        cniVersion: list.cniVersion,
        name: cached.networkName,
        runtimeConfig: cached.capabilityArgs,
        prevResult: cached.result,
      }),
      env: {
        CNI_COMMAND: "CHECK",
        CNI_CONTAINERID: allocation.id,
        CNI_NETNS: cached.netns,
        CNI_IFNAME: cached.ifName,
        CNI_PATH: plugins,
      },
    });
    if (exitCode !== 0) found.push(`${plugin.type}: ${stdout}${stderr}`);
  }
  return found;
}
