// The output of a task that runs from an image, and the reason for its failure.
import assert from "node:assert/strict";
import type { Agent } from "./agent.ts";
import { runJob } from "./allocation.ts";

/** Runs a shell line in the image and returns its output; the task must succeed. */
export async function outputOf(agent: Agent, image: string, line: string, config = ""): Promise<string> {
  const shell = `command = "/bin/sh"\nargs = ["-c", ${JSON.stringify(`${line}; echo end`)}]`;
  const allocation = await runJob({ agent, config: `image = "${image}"\n${shell}\n${config}` });
  assert.equal(await allocation.status(), "complete", await allocation.eventText());
  // The last line shows that the log is whole.
  await allocation.waitForLog(/^end$/m);
  return (await allocation.log()).replace(/end\n$/, "");
}

/** Nomad's messages to the user about a task that can't start from the image. */
export async function failureOf(agent: Agent, image: string, config = ""): Promise<string> {
  const allocation = await runJob({ agent, config: `image = "${image}"\ncommand = "true"\n${config}` });
  assert.equal(await allocation.status(), "failed");
  return await allocation.eventText();
}
