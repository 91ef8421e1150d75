// `tmpfs` and `mount` blocks of type tmpfs, by the rules of docker's --tmpfs and of Nomad's docker driver.
import { posix } from "node:path";
import { ConfigError } from "../../errors.ts";
import {
  asConfigMap,
  type ConfigMap,
  optionalBlocks,
  optionalBoolean,
  optionalInteger,
  optionalString,
  optionalStrings,
  refuseOtherKeys,
} from "../values.ts";

export interface TmpfsMount {
  readonly path: string;
  /** 0: half of the guest's memory. */
  readonly sizeBytes: number;
  /** Permission bits; 0: those of the directory that it covers, else 1777. */
  readonly mode: number;
  /** As mount(8) takes them, one each. */
  readonly options: readonly string[];
}

const flag = /^(?:ro|rw|(?:no)?(?:exec|suid|dev)|a?sync|(?:no|rel|strict)?atime|(?:no)?diratime)$/;
const setting = /^(?:size=\d+[kmg%]?|mode=0?[0-7]{3,4}|[ug]id=\d+|nr_(?:inodes|blocks)=\d+[kmg]?)$/i;

/** A later mount on a path takes the place of an earlier one. */
export function tmpfsMounts(config: ConfigMap): TmpfsMount[] {
  const mounts = [
    ...(optionalStrings(config, "tmpfs") ?? []).map(fromFlag),
    ...[...optionalBlocks(config, "mounts"), ...optionalBlocks(config, "mount")].map(fromBlock),
  ];
  return [...new Map(mounts.map((mount) => [mount.path, mount])).values()];
}

/** "/run" or "/run:size=64m,mode=755,uid=33". */
function fromFlag(text: string): TmpfsMount {
  const colon = text.indexOf(":");
  const path = absolute("tmpfs", colon < 0 ? text : text.slice(0, colon));
  const options = colon < 0 ? [] : text.slice(colon + 1).split(",");
  const wrong = options.find((option) => !flag.test(option) && !setting.test(option));
  if (wrong !== undefined) {
    throw new ConfigError(
      "tmpfs",
      text,
      `${JSON.stringify(wrong)} is no option of a tmpfs, such as size=64m or mode=755`,
    );
  }
  return { path, sizeBytes: 0, mode: 0, options };
}

function fromBlock(block: ConfigMap): TmpfsMount {
  refuseOtherKeys(block, "mount", [
    "type",
    "target",
    "source",
    "readonly",
    "bind_options",
    "tmpfs_options",
    "volume_options",
  ]);
  const type = optionalString(block, "type") ?? "volume";
  const target = optionalString(block, "target") ?? "";
  if (type !== "tmpfs") {
    throw new ConfigError(
      "mount.type",
      type,
      `can't be had in a VM yet (target ${JSON.stringify(target)}); use "tmpfs"`,
    );
  }
  if ((optionalString(block, "source") ?? "") !== "") {
    throw new ConfigError("mount.source", block["source"], "must be empty for a tmpfs");
  }
  const [options = {}] = optionalBlocks(block, "tmpfs_options");
  refuseOtherKeys(options, "mount.tmpfs_options", ["size", "mode"]);
  return {
    path: absolute("mount.target", target),
    sizeBytes: optionalInteger(options, "size", { minimum: 0, maximum: Number.MAX_SAFE_INTEGER, unit: "bytes" }) ?? 0,
    mode: mode(asConfigMap(options)),
    options: (optionalBoolean(block, "readonly") ?? false) ? ["ro"] : [],
  };
}

/** A number is taken as it is (511 is 0777), as docker's driver does; a text with a leading 0 is octal. */
function mode(options: ConfigMap): number {
  const value = options["mode"];
  if (typeof value === "string" && /^0[0-7]{1,4}$/.test(value)) return Number.parseInt(value, 8);
  return optionalInteger(options, "mode", { minimum: 0, maximum: 0o7777, unit: "permission bits" }) ?? 0;
}

function absolute(key: string, path: string): string {
  if (!path.startsWith("/")) throw new ConfigError(key, path, "must be an absolute path");
  const normal = posix.normalize(path).replace(/(.)\/$/, "$1");
  if (normal === "/") throw new ConfigError(key, path, "must not be the root");
  return normal;
}
