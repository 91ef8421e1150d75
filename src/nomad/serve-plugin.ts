// The plugin process: listens, prints its one line on stdout, serves until the host stops it. VMs don't depend on it.
import { mkdtempSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { NomadDriver } from "../driver/nomad-driver.ts";
import type { Logger } from "../system/logger.ts";
import { type AnswerCall, startGrpcServer } from "./grpc-server.ts";
import { type Environment, handshakeLine, magicCookie } from "./handshake.ts";

export interface ServePluginOptions {
  readonly name: string;
  /** Called once the host knows the socket. */
  readonly loadDriver: () => Promise<NomadDriver>;
  readonly logger: Logger;
  readonly env: Environment;
}

/**
 * A plugin whose agent died waits for the next agent to find it. If none connects for this long, it ends: the next
 * agent starts another plugin, which finds the same VMs.
 */
const orphanedMs = 10 * 60_000;

/**
 * Resolves once the host knows the socket; the process then lives until the host ends it. Fails, before it prints a
 * line on stdout, if the host is not Nomad or asks for mutual TLS.
 */
export async function servePlugin(options: ServePluginOptions): Promise<void> {
  const { name, logger, env } = options;
  if (env[magicCookie.name] !== magicCookie.value) {
    throw new Error(`${name} is a Nomad plugin: ${magicCookie.name} is not Nomad's`);
  }
  // go-plugin's AutoMTLS: the host's certificate, which the handshake would have to answer with ours. Nomad never sets
  // it.
  if ((env["PLUGIN_CLIENT_CERT"] ?? "") !== "") {
    throw new Error(`${name} does not speak TLS: start it without PLUGIN_CLIENT_CERT, as Nomad does`);
  }
  installProcessHandlers(logger);
  const directory = mkdtempSync(join(env["PLUGIN_UNIX_SOCKET_DIR"] ?? tmpdir(), "litegix-plugin-"));
  process.once("exit", () => rmSync(directory, { recursive: true, force: true }));
  const socketPath = join(directory, "plugin.sock");
  let orphanTimer: NodeJS.Timeout | undefined;
  const answer = Promise.withResolvers<AnswerCall>();
  await startGrpcServer({
    socketPath,
    logger,
    answer: answer.promise,
    onSessions: (count) => {
      clearTimeout(orphanTimer);
      if (count === 0) orphanTimer = setTimeout(() => process.exit(0), orphanedMs);
    },
  });
  writeSync(1, handshakeLine({ socketPath, multiplexingAsked: env["PLUGIN_MULTIPLEX_GRPC"] !== undefined }));
  // An error here ends the process with a log line (see fail).
  void loadCalls(options).then(answer.resolve);
}

async function loadCalls({ loadDriver, logger }: ServePluginOptions): Promise<AnswerCall> {
  const [{ pluginCalls }, driver] = await Promise.all([import("./plugin-calls.ts"), loadDriver()]);
  return pluginCalls({ driver, logger });
}

function installProcessHandlers(logger: Logger): void {
  // An interactive Ctrl-C reaches the whole process group; only the agent may act on it.
  process.on("SIGINT", () => {});
  // After a re-attach these pipes have no reader: without a listener the first EPIPE would end the process.
  for (const stream of [process.stdout, process.stderr]) stream.on("error", () => {});
  const fail = (error: unknown): void => {
    logger.error("the plugin ends after an error that nothing handled", {
      error,
      stack: error instanceof Error ? error.stack : undefined,
    });
    process.exit(1);
  };
  process.on("uncaughtException", fail);
  process.on("unhandledRejection", fail);
}
