// How the task's image is got: the words of Nomad's docker driver.

import type { Credentials } from "../../../images/registry/authenticator.ts";
import { ConfigError } from "../../errors.ts";
import { attr, block, type NamedSpec, object } from "../hcl-spec.ts";
import {
  asConfigMap,
  type ConfigMap,
  optionalBoolean,
  optionalDuration,
  optionalString,
  requiredString,
} from "../values.ts";

export interface ImageOptions {
  readonly reference: string;
  readonly forcePull: boolean;
  readonly pullTimeoutMs: number;
  readonly credentials: Credentials | undefined;
}

/** As docker's driver. */
const defaultPullTimeoutMs = 5 * 60_000;
const longestPullTimeoutMs = 24 * 60 * 60_000;

export const imageOptionSpecs: readonly NamedSpec[] = [
  attr("image", "any"),
  attr("force_pull", "any"),
  attr("image_pull_timeout", "any"),
  block(
    "auth",
    object(attr("username", "any"), attr("password", "any"), attr("email", "any"), attr("server_address", "any")),
  ),
];

/** Fails with ConfigError. */
export function parseImageOptions(config: ConfigMap): ImageOptions {
  return {
    reference: requiredString(config, "image", "busybox:latest"),
    forcePull: optionalBoolean(config, "force_pull") ?? false,
    pullTimeoutMs:
      optionalDuration(config, "image_pull_timeout", { minimumMs: 1_000, maximumMs: longestPullTimeoutMs }) ??
      defaultPullTimeoutMs,
    credentials: credentials(config),
  };
}

/** Jobs take both from variables that may be empty: then the image is taken to be public, as docker's driver does. */
function credentials(config: ConfigMap): Credentials | undefined {
  if (config["auth"] === null || config["auth"] === undefined) return undefined;
  const map = asConfigMap(config["auth"]);
  const username = optionalString(map, "username") ?? "";
  const password = optionalString(map, "password") ?? "";
  if (username === "" && password === "") return undefined;
  if (username === "") throw new ConfigError("auth.username", username, "must be set where auth.password is");
  // The password itself must not show in a message.
  if (password === "") throw new ConfigError("auth.password", undefined, "must be set where auth.username is");
  return { username, password };
}
