// Log lines as go-plugin's host parses them (log_entry.go): JSON, a timestamp with exactly six fractional digits, and
// string values for the @ keys. The host logs anything else raw, and a non-string @message ends the whole agent with a
// panic.
import type { Logger } from "../system/logger.ts";

type Level = keyof Logger;

export interface HclogOptions {
  /** Gets whole lines. */
  readonly write: (line: string) => void;
  readonly module: string;
  readonly now?: () => Date;
}

/** The host splits longer lines into fragments. */
const maxLineBytes = 32 * 1024;

export function createHclogLogger(options: HclogOptions): Logger {
  const now = options.now ?? ((): Date => new Date());
  const log =
    (level: Level) =>
    (message: string, fields: Readonly<Record<string, unknown>> = {}): void => {
      const entry = {
        ...Object.fromEntries(Object.entries(fields).filter(([key]) => !key.startsWith("@"))),
        "@level": level,
        "@message": String(message),
        "@module": options.module,
        "@timestamp": now().toISOString().replace(/Z$/, "000Z"),
      };
      let line = JSON.stringify(entry, toJson);
      if (Buffer.byteLength(line) > maxLineBytes) {
        line = JSON.stringify({
          "@level": entry["@level"],
          "@message": entry["@message"].slice(0, 4096),
          "@module": entry["@module"],
          "@timestamp": entry["@timestamp"],
        });
      }
      options.write(`${line}\n`);
    };
  return { trace: log("trace"), debug: log("debug"), info: log("info"), warn: log("warn"), error: log("error") };
}

function toJson(_key: string, value: unknown): unknown {
  if (typeof value === "bigint") return value.toString();
  if (value instanceof Error) return errorChain(value);
  return value;
}

/** The messages of an error and its causes. */
function errorChain(error: Error): string {
  const messages: string[] = [];
  for (let current: unknown = error; current instanceof Error && messages.length < 8; current = current.cause) {
    messages.push(current.message);
  }
  return messages.join(": ");
}
