// A decoded `config` block: go-cty's msgpack (helper/pluginutils/hclutils of Nomad). Integers come in their smallest
// form, and numbers that no float64 holds come as decimal text. cty's extension types (unknown values) can't occur and
// are refused.
import { type DecoderOptions, decode, ExtensionCodec } from "@msgpack/msgpack";
import { DriverConfigError } from "./errors.ts";

const noExtensions = new ExtensionCodec();

/** The decoder refuses the key "__proto__", which is a valid name in HCL. This mark in front of every key hides it. */
const keyMark = ":";
const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
const markKeys: Required<DecoderOptions>["keyDecoder"] = {
  canBeCached: () => true,
  decode: (bytes, offset, length) => `${keyMark}${utf8.decode(bytes.subarray(offset, offset + length))}`,
};

/**
 * Returns maps as Map, in their order. Undefined if there are no bytes (no config, or a handle from Nomad's disk, which
 * loses it). Fails with DriverConfigError.
 */
export function decodeDriverConfig(bytes: Uint8Array): unknown {
  if (bytes.length === 0) return undefined;
  try {
    return plain(decode(bytes, { useBigInt64: true, extensionCodec: noExtensions, keyDecoder: markKeys }));
  } catch (error) {
    // A RangeError comes from the decoder's stack, or from ours, on hostile nesting.
    throw new DriverConfigError({ reason: (error as Error).message, cause: error });
  }
}

/** 64-bit integers that a number holds exactly become numbers. */
function plain(value: unknown): unknown {
  if (typeof value === "bigint") {
    return value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER ? Number(value) : value;
  }
  if (Array.isArray(value)) return value.map(plain);
  if (value instanceof Uint8Array) throw new Error("it holds binary data");
  if (typeof value === "object" && value !== null) {
    if (value.constructor !== Object) throw new Error("it holds an extension value");
    return new Map(Object.entries(value).map(([key, inner]) => [unmark(key), plain(inner)]));
  }
  return value;
}

function unmark(key: string): string {
  if (!key.startsWith(keyMark)) throw new Error("it holds a map with a key that is not a string");
  return key.slice(keyMark.length);
}
