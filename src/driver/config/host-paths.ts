// Files and devices of the host that a job names. The authors of jobs need not be trusted with the host: a job may name only the
// paths that the plugin's `allowed_host_paths` lists, and those below them, with all links followed.
import { realpath, stat } from "node:fs/promises";
import { ConfigError } from "../errors.ts";

/** The path without links, which the caller must open instead. Fails with ConfigError, which names the key. */
export async function allowedHostPath(options: {
  key: string;
  path: string;
  allowed: readonly string[];
  kinds: readonly ("file" | "block device")[];
}): Promise<string> {
  const { key, path, allowed, kinds } = options;
  const refused = (): ConfigError => {
    const list = allowed.length === 0 ? "which is empty" : `which has ${allowed.join(", ")}`;
    return new ConfigError(key, path, `is not allowed: allowed_host_paths in the plugin's config, ${list}, decides`);
  };
  // The message must not reveal if a path exists that is not allowed.
  if (!allowed.some((root) => isWithin(path, root))) throw refused();
  const resolved = await realpath(path).catch((error: NodeJS.ErrnoException) => {
    throw new ConfigError(key, path, error.code === "ENOENT" ? "does not exist" : `can't be reached (${error.code})`);
  });
  const roots = await Promise.all(allowed.map((root) => realpath(root).catch(() => root)));
  if (!roots.some((root) => isWithin(resolved, root))) throw refused();
  const facts = await stat(resolved);
  const kind = facts.isFile() ? "file" : facts.isBlockDevice() ? "block device" : undefined;
  if (kind === undefined || !kinds.includes(kind)) throw new ConfigError(key, path, `is not a ${kinds.join(" or ")}`);
  return resolved;
}

function isWithin(path: string, root: string): boolean {
  if (path.split("/").includes("..")) return false;
  const base = root.replace(/\/+$/, "");
  return path === base || path.startsWith(`${base}/`);
}
