// Readers of values in Nomad's `config` blocks. Most keys are declared `any` to Nomad, so that a wrong value reaches the driver
// and the message can name the key, the value and the rule. Conversions are HCL's own: numbers and booleans count as strings;
// numbers may come as decimal strings (cty sends a number that no float64 holds as text).
import { split } from "shlex";
import { ConfigError } from "../errors.ts";

export interface Reader<T> {
  /** For the documentation. */
  readonly type: string;
  /** All values that are allowed, if there are few. */
  readonly choices?: readonly string[];
  /** `value` is neither null nor undefined; `path` is the key's full name. Fails with ConfigError. */
  readonly read: (value: unknown, path: string) => T;
}

/** The reader's values, checked or converted further. */
export function refine<T, U>(reader: Reader<T>, convert: (value: T, path: string) => U, type = reader.type): Reader<U> {
  return { type, read: (value, path) => convert(reader.read(value, path), path) };
}

/** Undefined for scalars and lists. Nomad's maps arrive as Maps; the command line and tests write objects. */
export function toMap(value: unknown): ReadonlyMap<string, unknown> | undefined {
  if (value instanceof Map) return value as Map<string, unknown>;
  if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined;
  return new Map(Object.entries(value));
}

/** With all maps in it as objects, as JSON has them. */
export function toJson(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(toJson);
  const map = toMap(value);
  return map === undefined ? value : Object.fromEntries([...map].map(([name, inner]) => [name, toJson(inner)]));
}

function scalarToString(value: unknown): string | undefined {
  if (typeof value === "string") return value;
  if (typeof value === "number" || typeof value === "bigint" || typeof value === "boolean") return String(value);
  return undefined;
}

/** NUL ends strings in the kernel: the rest would silently vanish. */
function withoutNul(path: string, text: string): string {
  if (text.includes("\0")) throw new ConfigError(path, text, "must not hold a NUL character");
  return text;
}

export const string: Reader<string> = {
  type: "string",
  read: (value, path) => {
    const text = scalarToString(value);
    if (text === undefined) throw new ConfigError(path, value, "must be a string");
    return withoutNul(path, text);
  },
};

/** No message shows the value. */
export const secret: Reader<string> = {
  type: "string",
  read: (value, path) => {
    const text = scalarToString(value);
    if (text === undefined) throw new ConfigError(path, undefined, "must be a string");
    if (text.includes("\0")) throw new ConfigError(path, undefined, "must not hold a NUL character");
    return text;
  },
};

export const boolean: Reader<boolean> = {
  type: "boolean",
  read: (value, path) => {
    if (value === true || value === "true") return true;
    if (value === false || value === "false") return false;
    throw new ConfigError(path, value, "must be true or false");
  },
};

/** Any value: the driver accepts the key, and it changes nothing. */
export const ignored: Reader<undefined> = { type: "any value", read: () => undefined };

/** Both bounds are allowed values. */
export function integer(bounds: { min: number; max?: number; unit: string }): Reader<number> {
  const { min, max = Number.MAX_SAFE_INTEGER, unit } = bounds;
  return {
    type: `number of ${unit}, ${max === Number.MAX_SAFE_INTEGER ? `${min} or more` : `${min} to ${max}`}`,
    read: (value, path) => {
      const text = typeof value === "boolean" ? undefined : scalarToString(value);
      const number = text === undefined || text.trim() === "" ? Number.NaN : Number(text);
      if (!Number.isSafeInteger(number) || number < min || number > max) {
        throw new ConfigError(path, value, `must be a whole number of ${unit} from ${min} to ${max}`);
      }
      return number;
    },
  };
}

const durationUnitsMs = { h: 3_600_000, m: 60_000, s: 1000, ms: 1 };

/** Milliseconds of a Go duration such as "5m" or "1h30m". Both bounds are allowed values. */
export function duration(bounds: { minMs: number; maxMs: number }): Reader<number> {
  const { minMs, maxMs } = bounds;
  const range = `${minMs / durationUnitsMs.s}s to ${maxMs / durationUnitsMs.h}h`;
  return refine(
    string,
    (text, path) => {
      const parts = [...text.matchAll(/(\d+(?:\.\d+)?)(h|ms|m|s)/g)];
      const whole = parts.map(([part]) => part).join("") === text;
      const times = parts.map(
        ([, number, unit]) => Number(number) * durationUnitsMs[unit as keyof typeof durationUnitsMs],
      );
      const ms = times.reduce((sum, time) => sum + time, 0);
      if (whole && ms >= minMs && ms <= maxMs) return ms;
      throw new ConfigError(path, text, `must be a duration from ${range}, such as "5m"`);
    },
    `duration, ${range}`,
  );
}

export function oneOf<T extends string>(...choices: readonly T[]): Reader<T> {
  const quoted = choices.map((choice) => `"${choice}"`);
  const list = `${quoted.slice(0, -1).join(", ")} or ${quoted.at(-1) ?? ""}`;
  return {
    choices,
    ...refine(
      string,
      (text, path) => {
        const found = choices.find((choice) => choice === text);
        if (found === undefined) throw new ConfigError(path, text, `must be ${list}`);
        return found;
      },
      list,
    ),
  };
}

/** The message gives the rule and the whole value. */
function toStrings(value: readonly unknown[], path: string, rule: string): string[] {
  return value.map((item) => {
    const text = scalarToString(item);
    if (text === undefined) throw new ConfigError(path, value, rule);
    return withoutNul(path, text);
  });
}

export const strings: Reader<string[]> = {
  type: "list of strings",
  read: (value, path) => {
    const rule = "must be a list of strings";
    if (!Array.isArray(value)) throw new ConfigError(path, value, rule);
    return toStrings(value, path, rule);
  },
};

/** A list of strings, or one string that is split as a POSIX shell splits words. */
export const words: Reader<string[]> = {
  type: "list of strings, or one string of words as in a shell",
  read: (value, path) => {
    const rule = "must be a list of strings, or one string such as \"-c 'echo hello'\"";
    if (Array.isArray(value)) return toStrings(value, path, rule);
    const text = scalarToString(value);
    if (text === undefined) throw new ConfigError(path, value, rule);
    try {
      return split(withoutNul(path, text));
    } catch (error) {
      if (error instanceof ConfigError) throw error;
      throw new ConfigError(path, value, "has a quote or backslash without its end");
    }
  },
};

/** "NAME=value" each, in order. */
export const environment: Reader<string[]> = {
  type: 'list of "NAME=value" strings, or map of strings',
  read: (value, path) => {
    const rule = 'must be a list of "NAME=value" strings, or a map of strings';
    return (Array.isArray(value) ? (value as unknown[]) : [value]).flatMap((item) => {
      if (typeof item === "string") {
        if (item.indexOf("=") <= 0) throw new ConfigError(path, item, rule);
        return withoutNul(path, item);
      }
      const map = toMap(item);
      if (map === undefined) throw new ConfigError(path, value, rule);
      return [...map].map(([name, inner]) => {
        const text = scalarToString(inner);
        if (text === undefined) throw new ConfigError(`${path}.${name}`, inner, "must be a string");
        if (name === "" || name.includes("="))
          throw new ConfigError(path, name, 'a name must not be empty or hold "="');
        return withoutNul(path, `${name}=${text}`);
      });
    });
  },
};

/** As an attribute (`key = { a = "b" }`), or as one or more blocks, of which the later wins. */
export const stringMap: Reader<ReadonlyMap<string, string>> = {
  type: "map of strings",
  read: (value, path) => {
    const entries = toBlocks(value, path).flatMap((block) => [...block]);
    return new Map(
      entries.map(([name, inner]) => {
        const text = scalarToString(inner);
        if (text === undefined) throw new ConfigError(`${path}.${name}`, inner, "must be a string");
        return [withoutNul(path, name), withoutNul(path, text)];
      }),
    );
  },
};

/** Repeated blocks, or a list of maps, or one map. */
export function toBlocks(value: unknown, path: string): ReadonlyMap<string, unknown>[] {
  return (Array.isArray(value) ? (value as unknown[]) : [value]).map((item) => {
    const map = toMap(item);
    if (map === undefined) throw new ConfigError(path, value, "must be a block or a map");
    return map;
  });
}
