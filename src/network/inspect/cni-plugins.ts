// Looks for the CNI plugins of Nomad's bridge mode. Without them Nomad does not place such a job on the node, and names only a
// constraint; the fingerprint names the cure.
import { join } from "node:path";
import { exists } from "../../system/files.ts";

/** Nomad's default for cni_path, then the directories that distributions use. */
const usualDirectories = ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"];
/** Nomad's bridge uses these: client/allocrunner/networking_bridge_linux.go. */
const needed = ["loopback", "bridge", "host-local", "firewall", "portmap"];

/** A sentence for the fingerprint; undefined if one directory has all plugins. Nomad does not tell drivers its own cni_path. */
export async function whyNoBridge(directories: readonly string[] = usualDirectories): Promise<string | undefined> {
  const missing = await Promise.all(
    directories.map(async (directory) => {
      const found = await Promise.all(needed.map((name) => exists(join(directory, name))));
      return needed.filter((_, index) => found[index] === false);
    }),
  );
  if (missing.some((names) => names.length === 0)) return undefined;
  const fewest = missing.reduce((a, b) => (b.length < a.length ? b : a), needed);
  return (
    `bridge mode needs the CNI plugins ${needed.join(", ")}: no ${fewest.join(", ")} in ${directories.join(", ")}; ` +
    `install them (Debian: containernetworking-plugins, and cni_path = "/usr/lib/cni" in Nomad's client block). ` +
    "The driver does not look for plugins in another cni_path"
  );
}
