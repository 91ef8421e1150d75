// Rate limiters: Firecracker's token buckets, for bytes and for operations.
import type { RateLimiter, TokenBucket } from "../../../gen/firecracker/api.ts";
import { ConfigError } from "../../errors.ts";
import { attr, block, type HclSpec, type NamedSpec, object } from "../hcl-spec.ts";
import { type ConfigMap, optionalBlocks, optionalInteger, refuseOtherKeys } from "../values.ts";

const bucketKeys = ["size", "refill_time", "one_time_burst"];
/** Numbers that a double holds exactly; 9 PB. */
const largest = Number.MAX_SAFE_INTEGER;

export const bucketSpec: HclSpec = object(...bucketKeys.map((key) => attr(key, "number")));

export const limiterBlock = (name: string): NamedSpec =>
  block(name, object(block("bandwidth", bucketSpec), block("ops", bucketSpec)));

/** The one block of the name; fails with ConfigError when there are more. */
export function optionalBlock(config: ConfigMap, key: string): ConfigMap | undefined {
  const blocks = optionalBlocks(config, key);
  if (blocks.length > 1) throw new ConfigError(key, undefined, "may stand there once");
  return blocks[0];
}

export function optionalLimiter(config: ConfigMap, key: string, where = key): RateLimiter | undefined {
  const map = optionalBlock(config, key);
  if (map === undefined) return undefined;
  refuseOtherKeys(map, where, ["bandwidth", "ops"]);
  const bandwidth = optionalBucket(map, "bandwidth", `${where}.bandwidth`);
  const ops = optionalBucket(map, "ops", `${where}.ops`);
  if (bandwidth === undefined && ops === undefined) {
    throw new ConfigError(where, undefined, "needs bandwidth (bytes) or ops (operations), or both");
  }
  return { ...(bandwidth === undefined ? {} : { bandwidth }), ...(ops === undefined ? {} : { ops }) };
}

export function optionalBucket(config: ConfigMap, key: string, where: string): TokenBucket | undefined {
  const map = optionalBlock(config, key);
  if (map === undefined) return undefined;
  refuseOtherKeys(map, where, bucketKeys);
  const number = (name: string, minimum: number): number | undefined => {
    const present = map[name] === undefined || map[name] === null ? {} : { [`${where}.${name}`]: map[name] };
    return optionalInteger(present, `${where}.${name}`, { minimum, maximum: largest, unit: "tokens or milliseconds" });
  };
  const [size, refillTime, burst] = [number("size", 1), number("refill_time", 1), number("one_time_burst", 0)];
  if (size === undefined || refillTime === undefined) {
    throw new ConfigError(where, undefined, "needs size (tokens) and refill_time (milliseconds)");
  }
  return { size, refill_time: refillTime, ...(burst === undefined ? {} : { one_time_burst: burst }) };
}
