// `ulimit` and `sysctl` blocks.
import { ConfigError } from "../../errors.ts";
import { key } from "../table.ts";
import { refine, stringMap } from "../values.ts";

export interface ResourceLimit {
  readonly name: string;
  readonly soft: bigint;
  readonly hard: bigint;
}

/** docker's names, which are setrlimit's. */
const limitNames = [
  "as",
  "core",
  "cpu",
  "data",
  "fsize",
  "locks",
  "memlock",
  "msgqueue",
  "nice",
  "nofile",
  "nproc",
  "rss",
  "rtprio",
  "rttime",
  "sigpending",
  "stack",
];
const unlimited = (1n << 64n) - 1n;

const limits = refine(stringMap, (map, path) =>
  [...map].map(([name, text]): ResourceLimit => {
    const key = `${path}.${name}`;
    if (!limitNames.includes(name)) {
      throw new ConfigError(key, text, `is not a limit; the limits are ${limitNames.join(", ")}`);
    }
    const match = /^(-1|\d{1,19})(?::(-1|\d{1,19}))?$/.exec(text);
    const [, softText, hardText = softText] = match ?? [];
    if (softText === undefined || hardText === undefined) {
      throw new ConfigError(key, text, 'must be a number, or "soft:hard", e.g. "2048:4096"; -1 is unlimited');
    }
    const [soft, hard] = [limit(softText), limit(hardText)];
    if (soft > hard) throw new ConfigError(key, text, "has a soft limit above its hard limit");
    return { name, soft, hard };
  }),
);

const limit = (text: string): bigint => (text === "-1" ? unlimited : BigInt(text));

const sysctls = refine(stringMap, (map, path) =>
  [...map].map(([name, value]) => {
    // "net/ipv4/conf/eth0.1/forwarding" is sysctl(8)'s other spelling. No component may lead upwards.
    if (!/^[a-z0-9_-]+(?:[./][a-zA-Z0-9_-]+)+$/.test(name)) {
      const rule = 'is not the name of a kernel setting, such as "net.core.somaxconn"';
      throw new ConfigError(`${path}.${name}`, value, rule);
    }
    return { name, value };
  }),
);

export const limitsKey = key("ulimit", {
  reader: limits,
  default: {},
  doc: `Resource limits: one number, or \`"soft:hard"\`; -1 is unlimited. The names are docker's: ${limitNames.join(", ")}.`,
});

export const sysctlKey = key("sysctl", {
  reader: sysctls,
  default: {},
  doc: "Settings of the guest's kernel. Docker allows those of a container's namespaces; here the whole kernel is the task's own.",
});
