import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { confined } from "./confine.ts";

const user = { uid: 70_000, gid: 70_001 };

describe("the command line of a confined program", () => {
  it("with the host's file system", () => {
    const argv = confined({
      shimPath: "/shim",
      confinement: {
        ...user,
        cgroups: ["/sys/fs/cgroup/x"],
        network: { path: "/run/netns/a" },
        view: { kind: "host", writable: ["/w"], hidden: ["/run"], shown: ["/run/dns"], tmpMib: 64 },
        limits: { nofile: 100 },
        umask: 0o77,
      },
      argv: ["prog", "--uid", "0"],
    });
    assert.equal(
      argv.join(" "),
      "/shim confine --uid 70000 --gid 70001 --cgroup-procs /sys/fs/cgroup/x/cgroup.procs --netns /run/netns/a " +
        "--bind /w /w --hide /run --show /run/dns --tmp-mib 64 --limit nofile=100 --umask 77 -- prog --uid 0",
    );
  });

  it("with a root of its own", () => {
    const argv = confined({
      shimPath: "/shim",
      confinement: {
        ...user,
        network: "none",
        view: {
          kind: "root",
          directory: "/r",
          system: true,
          readOnly: ["/kernel"],
          writable: [{ source: "/a", target: "/b" }],
          devices: ["/dev/kvm"],
        },
        files: [
          { path: "/disk", readOnly: false, fd: 10 },
          { path: "/image", readOnly: true, fd: 11 },
        ],
        seccomp: "vsock",
      },
      argv: ["prog"],
    });
    assert.equal(
      argv.join(" "),
      "/shim confine --uid 70000 --gid 70001 --no-net --root /r --system --ro-bind /kernel /kernel --bind /a /b " +
        "--device /dev/kvm --open /disk 10 --ro-open /image 11 --seccomp vsock -- prog",
    );
  });
});
