// The plugin half of the executable: the driver behind Nomad's protocol.
import { createHclogLogger } from "./nomad/hclog.ts";
import { servePlugin } from "./nomad/serve-plugin.ts";
import { driverName } from "./version.ts";

export async function runPlugin(): Promise<void> {
  const logger = createHclogLogger({ module: driverName, write: (line) => void process.stderr.write(line) });
  await servePlugin({
    name: driverName,
    loadDriver: async () => {
      const { LitegixDriver } = await import("./driver/litegix-driver.ts");
      return new LitegixDriver({ logger });
    },
    logger,
    env: process.env,
  });
}
