// go-plugin's side services. stdio and broker only have to stay open: Nomad discards the first and never uses the
// second.
import { Code, ConnectError, type ConnectRouter } from "@connectrpc/connect";
import { GRPCBroker, GRPCController, GRPCStdio } from "../gen/goplugin/plugin_pb.js";
import { Health, HealthCheckResponse_ServingStatus as ServingStatus } from "../gen/grpc/health_pb.js";
import { untilAborted } from "./status.ts";

/** The plugin ends once it has sent the answer to this. */
export const shutdownPath = "/plugin.GRPCController/Shutdown";

export function goPluginRoutes(router: ConnectRouter): void {
  router.service(GRPCController, { shutdown: () => ({}) });
  router.service(GRPCStdio, {
    async *streamStdio(_request, call) {
      await untilAborted(call.signal);
      yield* [];
    },
  });
  router.service(GRPCBroker, {
    async *startStream(_requests, call) {
      await untilAborted(call.signal);
      yield* [];
    },
  });
  router.service(Health, { check: (request) => ({ status: servingStatus(request.service) }) });
}

function servingStatus(service: string): ServingStatus {
  if (service === "" || service === "plugin") return ServingStatus.SERVING;
  throw new ConnectError(`unknown service ${service}`, Code.NotFound);
}
