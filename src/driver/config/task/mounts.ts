// `tmpfs`, and `mount` blocks of type tmpfs, by the rules of docker's --tmpfs and of Nomad's docker driver.
import { posix } from "node:path";
import { ConfigError } from "../../errors.ts";
import { block, blocks, key, type Row } from "../table.ts";
import { boolean, ignored, integer, type Reader, refine, string, strings } from "../values.ts";

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

/** "/run" or "/run:size=64m,mode=755,uid=33". */
const tmpfs = refine(strings, (entries, key) =>
  entries.map((text): TmpfsMount => {
    const colon = text.indexOf(":");
    const path = mountPoint(key, colon < 0 ? text : text.slice(0, colon));
    const options = colon < 0 ? [] : text.slice(colon + 1).split(",");
    const wrong = options.find((option) => !flag.test(option) && !setting.test(option));
    if (wrong !== undefined) {
      const rule = `${JSON.stringify(wrong)} is not an option of a tmpfs, such as size=64m or mode=755`;
      throw new ConfigError(key, text, rule);
    }
    return { path, sizeBytes: 0, mode: 0, options };
  }),
);

/** A number is taken as it is (511 is 0777), as docker's driver does; a text with a leading 0 is octal. */
const permissionBits: Reader<number> = (() => {
  const number = integer({ min: 0, max: 0o7777, unit: "permission bits" });
  const read = (value: unknown, path: string): number =>
    typeof value === "string" && /^0[0-7]{1,4}$/.test(value) ? Number.parseInt(value, 8) : number.read(value, path);
  return { type: "number (511 is 0777), or octal text with a leading 0", read };
})();

const tmpfsOptions = block("tmpfs_options", {
  doc: "The size and the mode of a tmpfs.",
  rows: {
    size: key("size", {
      reader: integer({ min: 0, unit: "bytes" }),
      absent: "half of the guest's memory",
      doc: "The largest size.",
    }),
    mode: key("mode", {
      reader: permissionBits,
      absent: "the covered directory's, else 1777",
      doc: "The permissions of its root.",
    }),
  },
});

const mountBlock = (name: string, doc: string): Row<TmpfsMount[]> =>
  blocks(name, {
    free: true,
    path: () => "mount",
    doc,
    shape: "mount",
    rows: {
      type: key("type", {
        reader: string,
        default: "volume",
        doc: 'Must be "tmpfs": volumes and binds do not exist yet.',
      }),
      target: key("target", { reader: string, default: "", absent: "required", doc: "The absolute path in the VM." }),
      source: key("source", { reader: string, default: "", doc: "Must be empty for a tmpfs." }),
      readonly: key("readonly", { reader: boolean, default: false, doc: "Whether the mount is read-only." }),
      bindOptions: key("bind_options", { reader: ignored, doc: "Accepted and ignored." }),
      tmpfsOptions,
      volumeOptions: key("volume_options", { reader: ignored, doc: "Accepted and ignored." }),
    },
    convert: ({ type, target, source, readonly, tmpfsOptions }, path): TmpfsMount => {
      if (type !== "tmpfs") {
        const rule = `is not available in a VM yet (target ${JSON.stringify(target)}); use "tmpfs"`;
        throw new ConfigError(`${path}.type`, type, rule);
      }
      if (source !== "") throw new ConfigError(`${path}.source`, source, "must be empty for a tmpfs");
      return {
        path: mountPoint(`${path}.target`, target),
        sizeBytes: tmpfsOptions?.size ?? 0,
        mode: tmpfsOptions?.mode ?? 0,
        options: readonly ? ["ro"] : [],
      };
    },
  });

export const mountTable = {
  tmpfs: key("tmpfs", {
    reader: tmpfs,
    default: [],
    doc: 'Each is a path, optionally with options as docker\'s --tmpfs takes them: "/run", "/cache:size=64m,mode=755".',
  }),
  mounts: mountBlock("mounts", "Another spelling of `mount`."),
  mount: mountBlock("mount", "A tmpfs, as docker's driver has it. A later mount on a path replaces an earlier one."),
};

function mountPoint(key: string, path: string): string {
  if (!path.startsWith("/")) throw new ConfigError(key, path, "must be an absolute path");
  const normal = posix.normalize(path).replace(/(.)\/$/, "$1");
  if (normal === "/") throw new ConfigError(key, path, "must not be the root");
  return normal;
}
