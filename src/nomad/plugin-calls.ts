// All services of the plugin, which answer the host's calls.
import type { NomadDriver } from "../driver/nomad-driver.ts";
import type { Logger } from "../system/logger.ts";
import { baseRoutes } from "./base-service.ts";
import { driverRoutes, driverStreams } from "./driver-service.ts";
import { goPluginRoutes, shutdownPath } from "./go-plugin-services.ts";
import { answerCalls } from "./grpc-calls.ts";
import type { AnswerCall } from "./grpc-server.ts";

export function pluginCalls(options: { driver: NomadDriver; logger: Logger }): AnswerCall {
  const { driver, logger } = options;
  return answerCalls({
    logger,
    routes: (router) => {
      goPluginRoutes(router);
      baseRoutes(router, driver);
      driverRoutes(router, driver);
    },
    rawStreams: driverStreams(driver),
    onAnswered: (path) => {
      // The host waits two seconds for the process to end; the answer's last bytes are in the kernel by now.
      if (path === shutdownPath) setTimeout(() => process.exit(0), 10);
    },
  });
}
