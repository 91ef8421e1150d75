// Network namespaces of a test's own: one for the agent, one for its peers, a veth pair between them. Nothing leaves them.
import { spawn } from "node:child_process";
import { text } from "node:stream/consumers";
import { run, runSuccessfully } from "./command.ts";

export const agentAddress = "10.99.0.2";
export const peerAddress = "10.99.0.1";
export const agentAddressV6 = "fd99::2";
export const peerAddressV6 = "fd99::1";
export const agentInterface = "up0";
const tag = process.pid.toString(36);

/** Set in the process that runs inside: the names of the namespaces. */
const variable = "LITEGIX_E2E_NAMESPACES";

export const inside = process.env[variable];

function names(): { agent: string; peer: string } {
  const [agent = "", peer = ""] = (inside ?? `lga${tag},lgp${tag}`).split(",");
  return { agent, peer };
}

/**
 * Runs a program's file again, in the agent's namespace, and passes its output on. The error repeats the failures, so
 * that they are read last.
 */
export async function runInside(file: string): Promise<void> {
  const { agent, peer } = names();
  try {
    for (const name of [agent, peer]) await ip(["netns", "add", name]);
    for (const name of [agent, peer]) await ip(["-n", name, "link", "set", "lo", "up"]);
    await ip(["-n", agent, "link", "add", agentInterface, "type", "veth", "peer", "name", "down0", "netns", peer]);
    await ip(["-n", agent, "address", "add", `${agentAddress}/24`, "dev", agentInterface]);
    await ip(["-n", peer, "address", "add", `${peerAddress}/24`, "dev", "down0"]);
    await ip(["-n", agent, "address", "add", `${agentAddressV6}/64`, "dev", agentInterface, "nodad"]);
    await ip(["-n", peer, "address", "add", `${peerAddressV6}/64`, "dev", "down0", "nodad"]);
    await ip(["-n", agent, "link", "set", agentInterface, "up"]);
    await ip(["-n", peer, "link", "set", "down0", "up"]);
    await ip(["-n", agent, "route", "add", "default", "via", peerAddress]);
    await ip(["-n", agent, "route", "add", "default", "via", peerAddressV6]);
    const { NODE_TEST_CONTEXT: _, ...env } = process.env;
    const child = spawn(
      "nsenter",
      [`--net=/run/netns/${agent}`, "--", process.execPath, "--test-reporter=spec", file],
      {
        stdio: ["ignore", "pipe", "inherit"],
        env: { ...env, [variable]: `${agent},${peer}` },
      },
    );
    child.stdout.pipe(process.stdout, { end: false });
    const [output, code] = await Promise.all([
      text(child.stdout),
      new Promise<number | null>((resolve, reject) => {
        child.once("error", reject);
        child.once("close", resolve);
      }),
    ]);
    if (code !== 0)
      throw new Error(`exit code ${code}: ${/failing tests:[\s\S]*$/.exec(output)?.[0] ?? output.slice(-2000)}`);
  } finally {
    for (const name of [agent, peer]) await run({ file: "ip", args: ["netns", "delete", name] });
  }
}

async function ip(args: readonly string[]): Promise<void> {
  await runSuccessfully({ file: "ip", args });
}

/** The words in front of a program that run it in the peers' namespace. */
export function asPeer(): [string, ...string[]] {
  return ["nsenter", `--net=/run/netns/${names().peer}`, "--"];
}
