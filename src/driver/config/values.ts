// Reading values of Nomad's `config` blocks. Every key is declared `any` to Nomad, so that a wrong value reaches us and the
// message can name the key, the value and the rule. Conversions are HCL's own: numbers and booleans count as strings;
// numbers may come as decimal strings (cty sends what no float64 holds as text).
import { split } from "shlex";
import { ConfigError } from "../errors.ts";

export type ConfigMap = Readonly<Record<string, unknown>>;

export function asConfigMap(config: unknown): ConfigMap {
  if (config instanceof Map) return Object.fromEntries(config as Map<string, unknown>);
  if (typeof config === "object" && config !== null) return config as ConfigMap;
  return {};
}

const isAbsent = (value: unknown): value is null | undefined => value === null || value === undefined;

function scalarToString(value: unknown): string | undefined {
  if (typeof value === "string") return value;
  if (typeof value === "number" || typeof value === "bigint" || typeof value === "boolean") return String(value);
  return undefined;
}

/** NUL ends strings in the kernel: what follows would silently vanish. */
function checked(key: string, value: string): string {
  if (value.includes("\0")) throw new ConfigError(key, value, "must not hold a NUL character");
  return value;
}

export function optionalString(config: ConfigMap, key: string): string | undefined {
  const value = config[key];
  if (isAbsent(value)) return undefined;
  const text = scalarToString(value);
  if (text === undefined) throw new ConfigError(key, value, "must be a string");
  return checked(key, text);
}

export function requiredString(config: ConfigMap, key: string, example: string): string {
  const value = optionalString(config, key);
  if (value === undefined) throw new ConfigError(key, undefined, `is required, e.g. ${key} = "${example}"`);
  if (value === "") throw new ConfigError(key, value, "must not be empty");
  return value;
}

export function optionalBoolean(config: ConfigMap, key: string): boolean | undefined {
  const value = config[key];
  if (isAbsent(value)) return undefined;
  if (value === true || value === "true") return true;
  if (value === false || value === "false") return false;
  throw new ConfigError(key, value, "must be true or false");
}

/** Both bounds are allowed values. */
export function optionalInteger(
  config: ConfigMap,
  key: string,
  bounds: { minimum: number; maximum: number; unit: string },
): number | undefined {
  const value = config[key];
  if (isAbsent(value)) return undefined;
  const text = typeof value === "boolean" ? undefined : scalarToString(value);
  const number = text === undefined || text.trim() === "" ? Number.NaN : Number(text);
  const { minimum, maximum, unit } = bounds;
  if (!Number.isSafeInteger(number) || number < minimum || number > maximum) {
    throw new ConfigError(key, value, `must be a whole number of ${unit} from ${minimum} to ${maximum}`);
  }
  return number;
}

const durationUnitsMs: Readonly<Record<string, number>> = { h: 3_600_000, m: 60_000, s: 1000, ms: 1 };

/** Milliseconds of a Go duration such as "5m" or "1h30m". Both bounds are allowed values. */
export function optionalDuration(
  config: ConfigMap,
  key: string,
  bounds: { minimumMs: number; maximumMs: number },
): number | undefined {
  const text = optionalString(config, key);
  if (text === undefined || text === "") return undefined;
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)(h|ms|m|s)/g)];
  const whole = parts.map(([part]) => part).join("") === text;
  const ms = parts.reduce((sum, [, number, unit]) => sum + Number(number) * (durationUnitsMs[unit ?? ""] ?? 0), 0);
  if (!whole || ms < bounds.minimumMs || ms > bounds.maximumMs) {
    const rule = `must be a duration from ${bounds.minimumMs / 1000}s to ${bounds.maximumMs / 3_600_000}h, such as "5m"`;
    throw new ConfigError(key, text, rule);
  }
  return ms;
}

/** A list of strings, or one string that is split as a POSIX shell splits words. */
export function optionalWords(config: ConfigMap, key: string): string[] | undefined {
  const value = config[key];
  if (isAbsent(value)) return undefined;
  const rule = "must be a list of strings, or one string such as \"-c 'echo hello'\"";
  if (Array.isArray(value)) {
    return value.map((item: unknown) => {
      const text = scalarToString(item);
      if (text === undefined) throw new ConfigError(key, value, rule);
      return checked(key, text);
    });
  }
  const text = scalarToString(value);
  if (text === undefined) throw new ConfigError(key, value, rule);
  try {
    return split(checked(key, text));
  } catch {
    throw new ConfigError(key, value, "has a quote or backslash without its end");
  }
}

/** A list of "K=V", or a map; entries in order. */
export function optionalEnvironment(config: ConfigMap, key: string): string[] | undefined {
  const value = config[key];
  if (isAbsent(value)) return undefined;
  const rule = 'must be a list of "NAME=value" strings, or a map of strings';
  const entries: string[] = [];
  for (const item of Array.isArray(value) ? (value as unknown[]) : [value]) {
    if (typeof item === "string") {
      const at = item.indexOf("=");
      if (at <= 0) throw new ConfigError(key, item, rule);
      entries.push(checked(key, item));
    } else if (typeof item === "object" && item !== null && !Array.isArray(item)) {
      for (const [name, inner] of Object.entries(asConfigMap(item))) {
        const text = scalarToString(inner);
        if (text === undefined) throw new ConfigError(`${key}.${name}`, inner, "must be a string");
        if (name === "" || name.includes("=")) throw new ConfigError(key, name, 'a name must not be empty or hold "="');
        entries.push(checked(key, `${name}=${text}`));
      }
    } else {
      throw new ConfigError(key, value, rule);
    }
  }
  return entries;
}

/** A list of strings; numbers and booleans count as strings. */
export function optionalStrings(config: ConfigMap, key: string): string[] | undefined {
  const value = config[key];
  if (isAbsent(value)) return undefined;
  const rule = "must be a list of strings";
  if (!Array.isArray(value)) throw new ConfigError(key, value, rule);
  return value.map((item: unknown) => {
    const text = scalarToString(item);
    if (text === undefined) throw new ConfigError(key, value, rule);
    return checked(key, text);
  });
}

/** A map of strings as an attribute (`key = { a = "b" }`), or as one or more blocks, of which the later wins. */
export function optionalStringMap(config: ConfigMap, key: string): ReadonlyMap<string, string> {
  const merged = new Map<string, string>();
  for (const block of optionalBlocks(config, key)) {
    for (const [name, inner] of Object.entries(block)) {
      const text = scalarToString(inner);
      if (text === undefined) throw new ConfigError(`${key}.${name}`, inner, "must be a string");
      merged.set(checked(key, name), checked(key, text));
    }
  }
  return merged;
}

/** Repeated blocks, or a list of maps, or one map. */
export function optionalBlocks(config: ConfigMap, key: string): ConfigMap[] {
  const value = config[key];
  if (isAbsent(value)) return [];
  return (Array.isArray(value) ? (value as unknown[]) : [value]).map((item) => {
    if (typeof item !== "object" || item === null || Array.isArray(item)) {
      throw new ConfigError(key, value, "must be a block or a map");
    }
    return asConfigMap(item);
  });
}

/** Inside a block whose keys Nomad has not checked: a misspelt one must not vanish. */
export function refuseOtherKeys(config: ConfigMap, where: string, known: readonly string[]): void {
  const other = Object.keys(config).find((key) => !known.includes(key));
  if (other !== undefined) throw new ConfigError(`${where}.${other}`, undefined, `is none of ${known.join(", ")}`);
}
