// A decoded `config` block: go-cty's msgpack (helper/pluginutils/hclutils of Nomad). Integers come in their smallest form,
// what no float64 holds as decimal text. cty's extension types (unknown values) can't occur and are refused.

import { decode, ExtensionCodec } from "@msgpack/msgpack";
import { DriverConfigError } from "./errors.ts";

const noExtensions = new ExtensionCodec();

/** Undefined for no bytes (no config, or a handle from Nomad's disk, where it is lost). Fails with DriverConfigError. */
export function decodeDriverConfig(bytes: Uint8Array): unknown {
  if (bytes.length === 0) return undefined;
  try {
    return plain(decode(bytes, { useBigInt64: true, extensionCodec: noExtensions, mapKeyConverter: keepKey }));
  } catch (error) {
    // A RangeError is the decoder's stack, or ours, on hostile nesting.
    throw new DriverConfigError({ reason: (error as Error).message, cause: error });
  }
}

/** The decoder refuses the key "__proto__", which is a valid name in HCL. */
function keepKey(key: unknown): string {
  return key === "__proto__" ? "__proto__ " : String(key);
}

/** 64-bit integers that a number holds exactly become numbers. */
function plain(value: unknown): unknown {
  if (typeof value === "bigint") {
    return value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER ? Number(value) : value;
  }
  if (Array.isArray(value)) return value.map(plain);
  if (value instanceof Uint8Array) throw new Error("it holds binary data");
  if (typeof value === "object" && value !== null) {
    if ("type" in value && value.constructor !== Object) throw new Error("it holds an extension value");
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, plain(inner)]));
  }
  return value;
}
