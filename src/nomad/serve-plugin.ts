// The plugin process: listen, say so in one line on stdout, serve until the host says to stop. VMs don't depend on it.
import { mkdtempSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { NomadDriver } from "../driver/nomad-driver.ts";
import type { Logger } from "../system/logger.ts";
import { type AnswerCall, startGrpcServer } from "./grpc-server.ts";
import { type Environment, handshakeLine, magicCookie } from "./handshake.ts";

export interface ServePluginOptions {
  readonly name: string;
  /** Called when the host has been told where to connect to. */
  readonly loadDriver: () => Promise<NomadDriver>;
  readonly logger: Logger;
  readonly env: Environment;
}

/**
 * A plugin whose agent died waits to be found again by the next agent. One that nobody asks for this long is not missed:
 * the next agent starts another, which finds the same VMs.
 */
const orphanedMs = 10 * 60_000;

/**
 * Resolves when the host has been told; the process then lives until the host ends it. Fails before it says a line on stdout
 * if the host is not Nomad, or asks for mutual TLS.
 */
export async function servePlugin(options: ServePluginOptions): Promise<void> {
  const { name, logger, env } = options;
  if (env[magicCookie.name] !== magicCookie.value) {
    throw new Error(`${name} is a Nomad plugin: ${magicCookie.name} is not Nomad's`);
  }
  // go-plugin's AutoMTLS: the host's certificate, to which the handshake would have to answer with ours. Nomad never sets it.
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
  // Nobody catches what goes wrong here: the process ends with a log line.
  void loadCalls(options).then(answer.resolve);
}

async function loadCalls({ loadDriver, logger }: ServePluginOptions): Promise<AnswerCall> {
  const [{ pluginCalls }, driver] = await Promise.all([import("./plugin-calls.ts"), loadDriver()]);
  return pluginCalls({ driver, logger });
}

function installProcessHandlers(logger: Logger): void {
  // An interactive Ctrl-C reaches the whole process group; the agent decides what it means.
  process.on("SIGINT", () => {});
  // After a re-attach nobody reads these pipes: without a listener the first EPIPE would end the process.
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
