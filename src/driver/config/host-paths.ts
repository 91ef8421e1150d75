// Files and devices of the host that a job names. The authors of jobs need not be trusted with the host: a job may name only the
// paths that the plugin's `allowed_host_paths` lists, and those below them, wherever links lead.
import { type HostFile, openBeneath } from "../../system/host-file.ts";
import { ConfigError } from "../errors.ts";

/** The file itself: the caller must use the descriptor and not the name. Fails with ConfigError, which names the key. */
export async function openAllowedPath(options: {
  key: string;
  path: string;
  allowed: readonly string[];
  kinds: readonly ("file" | "block device")[];
}): Promise<HostFile> {
  const { key, path, allowed, kinds } = options;
  let file: HostFile;
  try {
    file = await openBeneath({ path, roots: allowed });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "EXDEV") {
      const list = allowed.length === 0 ? "which is empty" : `which has ${allowed.join(", ")}`;
      throw new ConfigError(key, path, `is not allowed: allowed_host_paths in the plugin's config, ${list}, decides`);
    }
    throw new ConfigError(key, path, code === "ENOENT" ? "does not exist" : `can't be reached (${code})`);
  }
  if (kinds.some((kind) => kind === file.kind)) return file;
  await file[Symbol.asyncDispose]();
  throw new ConfigError(key, path, `is not a ${kinds.join(" or ")}`);
}
