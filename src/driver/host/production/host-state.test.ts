import assert from "node:assert/strict";
import { chmod, chown, mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, describe, it } from "node:test";
import { type HostState, readHostState } from "./host-state.ts";

const trees: string[] = [];
after(() => Promise.all(trees.map((tree) => rm(tree, { recursive: true }))));

/** A host's files by their paths. */
async function tree(files: Readonly<Record<string, string>>): Promise<string> {
  const root = await mkdtemp(join(tmpdir(), "litegix-host-"));
  await chmod(root, 0o755);
  trees.push(root);
  for (const [path, content] of Object.entries(files)) {
    await mkdir(dirname(join(root, path)), { recursive: true });
    await writeFile(join(root, path), `${content}\n`);
  }
  return root;
}

async function read(root: string, basePath = "/var/lib/base"): Promise<HostState> {
  const users = { first: 70_000, last: 79_999 };
  return await readHostState({ basePath, firecrackerPath: "/none", jailerPath: "/none", users, hostPaths: [], root });
}

describe("the host's state", () => {
  it("has nothing if the host's files can't be read", async () => {
    const state = await read(await tree({}));
    for (const key of ["kernelRelease", "smt", "ksm", "swaps", "vulnerabilities", "virtual", "baseMount"] as const) {
      assert.equal(state[key], undefined, key);
    }
    assert.deepEqual([state.microcode, state.pitThreads, state.programs, state.takenUsers], [[], [], [], []]);
  });

  it("tells encrypted swap, swap in memory and plain swap apart, by links too", async () => {
    const header = "Filename\tType\tSize\tUsed\tPriority";
    const root = await tree({
      "/proc/swaps": [header, ...["/dev/mapper/swap", "/dev/zram0", "/dev/zram1", "/dev/sda2", "/swapfile"]].join(
        " x 1 0 -2\n",
      ),
      "/dev/dm-3": "",
      "/dev/zram0": "",
      "/dev/zram1": "",
      "/dev/sda2": "",
      "/sys/class/block/dm-3/dm/uuid": "CRYPT-PLAIN-swap",
      "/sys/class/block/zram0/backing_dev": "none",
      "/sys/class/block/zram1/backing_dev": "/dev/sda3",
    });
    await mkdir(join(root, "dev/mapper"));
    await symlink("../dm-3", join(root, "dev/mapper/swap"));
    assert.deepEqual((await read(root)).swaps, [
      { name: "/dev/mapper/swap", kind: "encrypted" },
      { name: "/dev/zram0", kind: "memory" },
      { name: "/dev/zram1", kind: "plain" },
      { name: "/dev/sda2", kind: "plain" },
      { name: "/swapfile", kind: "plain" },
    ]);
    assert.deepEqual((await read(await tree({ "/proc/swaps": header }))).swaps, []);
  });

  it("reads the CPU, the kernel and KVM", async () => {
    const state = await read(
      await tree({
        "/proc/cpuinfo":
          "processor : 0\nmicrocode\t: 0x12\nflags\t\t: fpu hypervisor svm\n\nprocessor : 1\nmicrocode\t: 0x13",
        "/proc/cmdline": "quiet cgroup_favordynmods=true",
        "/proc/consoles": "tty0 -WU (EC p) 4:7\nttyS0 -W- (EC a) 4:64",
        "/proc/sys/kernel/printk": "7\t4\t1\t7",
        "/sys/devices/system/cpu/vulnerabilities/mds": "Mitigation: Clear CPU buffers; SMT vulnerable",
        "/sys/devices/system/edac/mc/mc0/mc_name": "x",
        "/sys/module/kvm_amd/parameters/nested": "1",
        "/sys/module/kvm/parameters/nx_huge_pages": "Y",
      }),
    );
    assert.deepEqual(state.microcode, ["0x12", "0x13"]);
    assert.deepEqual(state.vulnerabilities, { mds: "Mitigation: Clear CPU buffers; SMT vulnerable" });
    assert.deepEqual(state.kvm, { nested: "1", minTimerPeriodUs: undefined, nxHugePages: "Y" });
    const { virtual, serialConsole, consoleLevel, errorCorrection, favordynmods } = state;
    assert.deepEqual(
      [virtual, serialConsole, consoleLevel, errorCorrection, favordynmods],
      [true, true, 7, true, true],
    );
  });

  it("finds KVM's timer threads and their cgroups, versions 1 and 2", async () => {
    const state = await read(
      await tree({
        "/proc/10/comm": "kvm-pit/9",
        "/proc/10/cgroup": "0::/",
        "/proc/11/comm": "kvm-pit/8",
        "/proc/11/cgroup": "0::/litegix-fc-driver/a",
        "/proc/12/comm": "kvm-pit/7",
        "/proc/12/cgroup": "5:memory:/\n4:cpu,cpuacct:/litegix-fc-driver/b\n0::/",
        "/proc/13/comm": "sh",
      }),
    );
    const found = Object.fromEntries(state.pitThreads.map(({ name, inRootCgroup }) => [name, inRootCgroup]));
    assert.deepEqual(found, { "kvm-pit/9": true, "kvm-pit/8": false, "kvm-pit/7": false });
  });

  it("finds the base path's mount: the longest way, the last of several", async () => {
    const mounts = [
      "/dev/a / ext4 rw 0 0",
      "/dev/b /var ext4 rw 0 0",
      "/dev/c /var/lib/ba ext4 rw 0 0",
      "x /var/lib/base\\040x xfs rw 0 0",
      "/dev/d /var xfs rw,nosuid 0 0",
      "cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate,favordynmods 0 0",
    ].join("\n");
    const root = await tree({ "/proc/self/mounts": mounts });
    const state = await read(root);
    assert.deepEqual(state.baseMount, { point: "/var", type: "xfs", options: ["rw", "nosuid"] });
    assert.deepEqual([state.cgroupVersion, state.favordynmods], [2, true]);
    assert.equal((await read(root, "/var/lib/base x")).baseMount?.point, "/var/lib/base x");
  });

  it("knows what listens on more than loopback", async () => {
    const line = (address: string, port: string, state: string): string =>
      `   0: ${address}:${port} 00000000:0000 ${state} 0:0 0:0 0 0 0 1`;
    const v6 = "0".repeat(32);
    const root = await tree({
      "/proc/net/tcp": [
        "  sl local",
        line("00000000", "0016", "0A"),
        line("0100007F", "1226", "0A"),
        line("00000000", "1227", "01"),
      ].join("\n"),
      "/proc/net/tcp6": ["  sl local", line(v6, "1F90", "0A"), line(`${v6.slice(8)}01000000`, "1F91", "0A")].join("\n"),
    });
    assert.deepEqual([...(await read(root)).listening], [22, 8080]);
  });

  it("finds users, groups and subordinate ranges in the VMs' range", async () => {
    const root = await tree({
      "/etc/passwd": "root:x:0:0::/:/bin/sh\neve:x:70001:100::/:/bin/sh",
      "/etc/group": "root:x:0:\nteam:x:80000:",
      "/etc/subuid": "adam:100000:65536\nbob:65536:65536",
    });
    assert.deepEqual((await read(root)).takenUsers, ["eve of /etc/passwd", "bob's range 65536-131071 of /etc/subuid"]);
  });

  const skip = process.getuid?.() === 0 ? false : "changing owners needs root";
  it("finds what others than root may change on the way to the base path, behind links too", { skip }, async () => {
    const root = await tree({ "/srv/team/base/x": "" });
    await mkdir(join(root, "var/lib"), { recursive: true });
    await symlink("../../srv/team/base", join(root, "var/lib/base"));
    const fault = async (): Promise<string | undefined> => (await read(root)).basePath.fault?.replaceAll(root, "");
    assert.equal(await fault(), undefined);
    await chown(join(root, "srv/team"), 1000, 1000);
    assert.equal(await fault(), "/srv/team belongs to user 1000 (chown root /srv/team)");
    await chown(join(root, "srv/team"), 0, 0);
    await chmod(join(root, "var/lib"), 0o777);
    assert.match((await fault()) ?? "", /^\/var\/lib can be written by everybody/);
  });
});
