// Rate limiters: Firecracker's token buckets, for bytes and for operations.
import type { RateLimiter, TokenBucket } from "../../../gen/firecracker/api.ts";
import { ConfigError } from "../../errors.ts";
import { block, key, present, type Row } from "../table.ts";
import { integer } from "../values.ts";

export const bucketBlock = (name: string, doc: string): Row<TokenBucket | undefined> =>
  block(name, {
    doc,
    shape: "token bucket",
    rows: {
      size: key("size", {
        reader: integer({ min: 1, unit: "tokens" }),
        hcl: "number",
        absent: "required",
        doc: "The bucket's size: bytes, or operations.",
      }),
      refill_time: key("refill_time", {
        reader: integer({ min: 1, unit: "milliseconds" }),
        hcl: "number",
        absent: "required",
        doc: "The time in which an empty bucket fills.",
      }),
      one_time_burst: key("one_time_burst", {
        reader: integer({ min: 0, unit: "tokens" }),
        hcl: "number",
        absent: "none",
        doc: "Tokens at the start on top of the size, which are not refilled.",
      }),
    },
    convert: ({ size, refill_time, one_time_burst }, path): TokenBucket => {
      if (size === undefined || refill_time === undefined) {
        throw new ConfigError(path, undefined, "needs size (tokens) and refill_time (milliseconds)");
      }
      return present({ size, refill_time, one_time_burst });
    },
  });

export const limiterBlock = (name: string, doc: string): Row<RateLimiter | undefined> =>
  block(name, {
    doc,
    shape: "rate limiter",
    rows: {
      bandwidth: bucketBlock("bandwidth", "Limits bytes."),
      ops: bucketBlock("ops", "Limits operations."),
    },
    convert: (limiter, path): RateLimiter => {
      if (limiter.bandwidth === undefined && limiter.ops === undefined) {
        throw new ConfigError(path, undefined, "needs bandwidth (bytes) or ops (operations), or both");
      }
      return present(limiter);
    },
  });
