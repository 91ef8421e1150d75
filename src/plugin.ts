// The plugin half of the executable: the driver behind Nomad's protocol.
import { LitegixDriver } from "./driver/litegix-driver.ts";
import { createHclogLogger } from "./nomad/hclog.ts";
import { servePlugin } from "./nomad/serve-plugin.ts";
import { driverName } from "./version.ts";

export async function runPlugin(): Promise<void> {
  const logger = createHclogLogger({ module: driverName, write: (line) => void process.stderr.write(line) });
  await servePlugin({ driver: new LitegixDriver({ logger }), logger, env: process.env });
}
