// go-plugin's handshake: the host's environment variables, and the one line that it reads from stdout (go-plugin
// client.go and server.go; plugins/base/plugin.go of Nomad).

/** Nomad's cookie, constant over all versions. */
export const magicCookie = {
  name: "NOMAD_PLUGIN_MAGIC_COOKIE",
  value: "e4327c2e01eabfd75a8a67adb114fb34a757d57eee7728d857a8cec6e91a7255",
} as const;

const coreProtocolVersion = 1;
const nomadProtocolVersion = 2;

export type Environment = Readonly<Record<string, string | undefined>>;

export interface HandshakeOptions {
  readonly socketPath: string;
  /** Hosts that know a seventh field say so; for older ones it would corrupt the sixth. */
  readonly multiplexingAsked: boolean;
}

export function handshakeLine(options: HandshakeOptions): string {
  const fields = [coreProtocolVersion, nomadProtocolVersion, "unix", options.socketPath, "grpc"];
  // The sixth field is the certificate of a plugin that speaks TLS.
  if (options.multiplexingAsked) fields.push("", "false");
  return `${fields.join("|")}\n`;
}
