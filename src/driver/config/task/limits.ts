// `ulimit` and `sysctl` blocks.

import { ConfigError } from "../../errors.ts";
import { type ConfigMap, optionalStringMap } from "../values.ts";

export interface ResourceLimit {
  readonly name: string;
  readonly soft: bigint;
  readonly hard: bigint;
}

export interface Sysctl {
  readonly name: string;
  readonly value: string;
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

/** "soft:hard" or one number for both; -1 is unlimited. */
export function resourceLimits(config: ConfigMap): ResourceLimit[] {
  return [...optionalStringMap(config, "ulimit")].map(([name, text]) => {
    const key = `ulimit.${name}`;
    if (!limitNames.includes(name)) {
      throw new ConfigError(key, text, `is no limit; there are ${limitNames.join(", ")}`);
    }
    const match = /^(-1|\d{1,19})(?::(-1|\d{1,19}))?$/.exec(text);
    const [, softText, hardText = softText] = match ?? [];
    if (softText === undefined || hardText === undefined) {
      throw new ConfigError(key, text, 'must be a number, or "soft:hard", e.g. "2048:4096"; -1 is unlimited');
    }
    const [soft, hard] = [limit(softText), limit(hardText)];
    if (soft > hard) throw new ConfigError(key, text, "has a soft limit above its hard limit");
    return { name, soft, hard };
  });
}

const limit = (text: string): bigint => (text === "-1" ? unlimited : BigInt(text));

/** Any of the guest's kernel: it is the task's own. */
export function sysctls(config: ConfigMap): Sysctl[] {
  return [...optionalStringMap(config, "sysctl")].map(([name, value]) => {
    // "net/ipv4/conf/eth0.1/forwarding" is sysctl(8)'s other spelling. No component may lead upwards.
    if (!/^[a-z0-9_-]+(?:[./][a-zA-Z0-9_-]+)+$/.test(name)) {
      throw new ConfigError(`sysctl.${name}`, value, 'has no name of a kernel setting, such as "net.core.somaxconn"');
    }
    return { name, value };
  });
}
