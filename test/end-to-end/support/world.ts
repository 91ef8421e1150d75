// A process's view of its world in a task, printed by a script in sections.
import assert from "node:assert/strict";
import type { Allocation } from "./allocation.ts";

/** Values that differ between processes by nature are left out. */
const script = `
section() { echo "== $1"; }
section id; id
section groups; grep Groups /proc/self/status | cut -f 2
section pwd; pwd
section env; env | grep -v '^SHLVL=\\|^_=\\|^PWD=' | sort
section limits; grep -E 'open files|locked memory|core file|processes' /proc/self/limits | sed -E 's/^Max //; s/ +/ /g'
section capabilities; grep -E 'Cap|NoNewPrivs' /proc/self/status | tr '\\t' ' '
section adjustment; cat /proc/self/oom_score_adj
section cgroup; cat /proc/self/cgroup
section namespaces; for n in pid mnt ipc uts net; do readlink /proc/self/ns/$n; done
section hostname; hostname
section hosts; cat /etc/hosts
section resolv; cat /etc/resolv.conf
section mounts; sed -E 's/^[^ ]+ //; s/lowerdir=.*/layers/; s/,inode64| 0 0//g' /proc/mounts | sort
section dev; ls -l /dev | sed -E 's/ [A-Z][a-z][a-z] +[0-9]+ +[0-9:]+ / /' | tr -s ' '
section sysctl; cat /proc/sys/net/core/somaxconn /proc/sys/kernel/msgmax
section umask; umask
section end
`;

export type World = ReadonlyMap<string, string>;

/** Config lines of a task that prints its world, runs more shell lines, and stays. */
export function worldTask(more = ""): string {
  return `command = "/bin/sh"\nargs = ["-c", ${JSON.stringify(`${script}\n${more}\nexec sleep 1d`)}]`;
}

/** As the task itself sees it, and as an exec process does. */
export async function worldsOf(allocation: Allocation): Promise<{ task: World; exec: World }> {
  await allocation.waitForLog(/^== end$/m);
  const task = sections(await allocation.log());
  const exec = await allocation.exec(["/bin/sh", "-c", script]);
  assert.equal(exec.exitCode, 0, exec.stderr);
  return { task, exec: sections(exec.stdout) };
}

function sections(text: string): World {
  return new Map(
    text
      .split(/^== /m)
      .slice(1)
      .map((part): [string, string] => {
        const line = part.indexOf("\n");
        return [part.slice(0, line), part.slice(line + 1)];
      }),
  );
}
