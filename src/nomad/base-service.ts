// The base plugin service: the plugin's identity, the schema of its config block, and the config itself.
import type { ConnectRouter } from "@connectrpc/connect";
import type { AgentConfig, NomadDriver } from "../driver/nomad-driver.ts";
import { BasePlugin, type ClientTopology, type NomadConfig, PluginType } from "../gen/nomad/base/base_pb.js";
import { decodeDriverConfig } from "./driver-config.ts";
import { toSpecMessage } from "./hcl-spec-message.ts";
import { answering } from "./status.ts";

/** The only driver API version that any Nomad release supports. */
const apiVersion = "v0.1.0";

export function baseRoutes(router: ConnectRouter, driver: NomadDriver): void {
  router.service(BasePlugin, {
    pluginInfo: () => ({
      type: PluginType.DRIVER,
      pluginApiVersions: [apiVersion],
      pluginVersion: driver.info.version,
      name: driver.info.name,
    }),
    configSchema: () => ({ spec: toSpecMessage(driver.configSchema()) }),
    setConfig: (request) =>
      answering(async () => {
        const config = decodeDriverConfig(request.msgpackConfig);
        await driver.setConfig({ config, agent: toAgentConfig(request.nomadConfig) });
        return {};
      }),
  });
}

/** Present only in the launch that runs tasks. The launches before it only validate, and must have no side effects. */
function toAgentConfig(config: NomadConfig | undefined): AgentConfig | undefined {
  const { driver } = config ?? {};
  if (driver === undefined) return undefined;
  return { totalMhz: totalMhz(driver.Topology), coreCount: driver.Topology?.cores.length ?? 0 };
}

/** As client/lib/numalib/topology.go of Nomad computes it. */
function totalMhz(topology: ClientTopology | undefined): number {
  if (topology === undefined) return 0;
  if (topology.overrideTotalCompute > 0n) return Number(topology.overrideTotalCompute);
  return topology.cores
    .map((core) => Number(core.baseSpeed || core.maxSpeed || core.guessSpeed))
    .reduce((sum, mhz) => sum + mhz, 0);
}
