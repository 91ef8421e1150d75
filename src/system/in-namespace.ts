// Runs a program in a network namespace. nsenter and not `ip netns exec`, which mounts another /sys.

/** `path`: the namespace's file; undefined: the caller's own. The program takes nsenter's place, pid included. */
export function inNamespace(path: string | undefined, argv: readonly [string, ...string[]]): [string, ...string[]] {
  return path === undefined ? [...argv] : ["nsenter", `--net=${path}`, "--", ...argv];
}
