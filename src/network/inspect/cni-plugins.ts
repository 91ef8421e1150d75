// The CNI plugins of Nomad's bridge mode. Nomad places no such job on a node without them, and tells of a constraint; here the cure is said.
import { join } from "node:path";
import { exists } from "../../system/files.ts";

/** Nomad's default for cni_path, then where distributions have them. */
const usualDirectories = ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"];
/** What Nomad's bridge is made of: client/allocrunner/networking_bridge_linux.go. */
const needed = ["loopback", "bridge", "host-local", "firewall", "portmap"];

/** A sentence for the fingerprint; undefined when one directory has all. Nomad's own cni_path isn't told to drivers. */
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
    "Plugins in another cni_path are not looked for"
  );
}
