import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { ConfigError } from "../../errors.ts";
import { capabilitySet, defaultCapabilities } from "./capabilities.ts";
import { containerTable, parseContainer } from "./container.ts";

const none = { add: [], drop: [], privileged: false };
const all = (1n << 64n) - 1n;

test("nothing said is docker's default", () => {
  const settings = parseContainer({});
  assert.equal(settings.capabilities, 0xa80425fbn);
  assert.deepEqual(
    { ...settings, capabilities: 0n },
    {
      hostname: undefined,
      extraHosts: [],
      dns: { servers: [], searches: [], options: [] },
      additionalGroups: [],
      capabilities: 0n,
      privileged: false,
      unmasked: false,
      noNewPrivileges: false,
      readOnlyRoot: false,
      shmSizeBytes: 0,
      tmpfsMounts: [],
      devices: [],
      limits: [],
      sysctls: [],
      pidsLimit: 0,
      oomScoreAdjustment: 0,
      oomWatch: true,
      init: false,
      terminal: false,
      openStdin: false,
    },
  );
});

for (const [name, options, set] of [
  ["adding", { add: ["net_admin"] }, defaultCapabilities | (1n << 12n)],
  ["dropping", { drop: ["CAP_CHOWN"] }, defaultCapabilities & ~1n],
  ["dropping all and adding some", { drop: ["ALL"], add: ["kill", "CAP_CHOWN"] }, 0b100001n],
  ["adding all but one", { add: ["all"], drop: ["chown"] }, all & ~1n],
  ["privileged", { privileged: true, drop: ["all"] }, all],
] as const) {
  test(`capabilities: ${name}`, () => assert.equal(capabilitySet({ ...none, ...options }), set));
}

test("capabilities: an addition wins over a removal, whatever the spelling", () => {
  const capability = fc.constantFrom("net_raw", "CAP_NET_RAW", "Kill", "cap_sys_admin", "MKNOD");
  fc.assert(
    fc.property(fc.array(capability), fc.array(capability), (add, drop) => {
      const set = capabilitySet({ add, drop, privileged: false });
      const added = capabilitySet({ add, drop: ["all"], privileged: false });
      assert.equal(set & added, added);
      const upper = capabilitySet({ add: add.map((it) => it.toUpperCase()), drop, privileged: false });
      assert.equal(upper, set);
    }),
  );
});

test("maps as attribute, as blocks, and with numbers", () => {
  const expected = [
    { name: "nofile", soft: 2048n, hard: 4096n },
    { name: "nproc", soft: 42n, hard: 42n },
    { name: "core", soft: 0n, hard: all },
  ];
  for (const ulimit of [
    { nofile: "2048:4096", nproc: 42, core: "0:-1" },
    [{ nofile: "2048:4096" }, { nproc: "42", core: "0:-1" }],
    new Map<string, unknown>([
      ["nofile", "2048:4096"],
      ["nproc", 42n],
      ["core", "0:-1"],
    ]),
  ]) {
    assert.deepEqual(parseContainer({ ulimit }).limits, expected);
  }
  assert.deepEqual(parseContainer({ sysctl: [{ "net.core.somaxconn": 16384 }] }).sysctls, [
    { name: "net.core.somaxconn", value: "16384" },
  ]);
});

test("tmpfs mounts in all three forms; the last on a path wins", () => {
  const { tmpfsMounts } = parseContainer({
    tmpfs: ["/a", "/run/:size=64m,mode=755,exec", "/both"],
    mounts: [{ type: "tmpfs", target: "/old", tmpfs_options: { size: 4096 } }],
    mount: [
      { type: "tmpfs", target: "/new", readonly: true, tmpfs_options: [{ size: 1, mode: 511 }] },
      { type: "tmpfs", target: "/x/../both", tmpfs_options: [{ mode: "0700" }] },
    ],
  });
  assert.deepEqual(tmpfsMounts, [
    { path: "/a", sizeBytes: 0, mode: 0, options: [] },
    { path: "/run", sizeBytes: 0, mode: 0, options: ["size=64m", "mode=755", "exec"] },
    { path: "/both", sizeBytes: 0, mode: 0o700, options: [] },
    { path: "/old", sizeBytes: 4096, mode: 0, options: [] },
    { path: "/new", sizeBytes: 1, mode: 0o777, options: ["ro"] },
  ]);
});

test("hosts, groups, DNS, security options", () => {
  const settings = parseContainer({
    extra_hosts: ["a:10.0.0.1", "b.c:2001:db8::1", "d=[::1]"],
    group_add: ["audio", 44],
    dns_servers: ["10.0.0.53"],
    dns_search_domains: ["."],
    security_opt: ["no-new-privileges:true", "apparmor=unconfined", "systempaths=unconfined", "label=disable"],
    pids_limit: -1,
    hostname: "",
  });
  assert.deepEqual(settings.extraHosts, [
    { name: "a", address: "10.0.0.1" },
    { name: "b.c", address: "2001:db8::1" },
    { name: "d", address: "::1" },
  ]);
  assert.deepEqual(settings.additionalGroups, ["audio", "44"]);
  assert.deepEqual(settings.dns, { servers: ["10.0.0.53"], searches: ["."], options: [] });
  assert.deepEqual([settings.noNewPrivileges, settings.unmasked], [true, true]);
  assert.deepEqual([settings.pidsLimit, settings.hostname], [0, undefined]);
});

for (const [bad, message] of [
  [{ cap_add: ["NOPE"] }, /config: cap_add = "NOPE": must be a capability/],
  [{ cap_drop: "ALL" }, /cap_drop = "ALL": must be a list of strings/],
  [{ privileged: "perhaps" }, /privileged = "perhaps": must be true or false/],
  [{ ulimit: { nofile: "5:4" } }, /ulimit.nofile = "5:4": has a soft limit above its hard limit/],
  [{ ulimit: { nofile: "" } }, /ulimit.nofile = "": must be a number/],
  [{ ulimit: { files: 1 } }, /ulimit.files = "1": is not a limit; the limits are as, core/],
  [{ ulimit: "nofile=1" }, /ulimit = "nofile=1": must be a block or a map/],
  [{ sysctl: { "../x": 1 } }, /sysctl\.\.\.\/x = "1": is not the name of a kernel setting/],
  [{ sysctl: { "net.core": [] } }, /sysctl.net.core = \[\]: must be a string/],
  [{ tmpfs: ["run"] }, /tmpfs = "run": must be an absolute path/],
  [{ tmpfs: ["/"] }, /tmpfs = "\/": must not be the root/],
  [{ tmpfs: ["/run:bind"] }, /tmpfs = "\/run:bind": "bind" is not an option/],
  [{ mount: [{ target: "/a" }] }, /mount.type = "volume": is not available in a VM yet/],
  [{ mount: [{ type: "tmpfs", target: "/a", source: "b" }] }, /mount.source = "b": must be empty/],
  [{ mount: [{ type: "tmpfs", traget: "/a" }] }, /mount.traget: is not one of type, target/],
  [
    { mount: [{ type: "tmpfs", target: "/a", tmpfs_options: [{ sise: 1 }] }] },
    /tmpfs_options.sise: is not one of size/,
  ],
  [{ hostname: "a b" }, /hostname = "a b": must be letters/],
  [{ hostname: "a".repeat(65) }, /at most 64/],
  [{ extra_hosts: ["a"] }, /extra_hosts = "a": must be "name:address"/],
  [{ extra_hosts: ["a:nowhere"] }, /extra_hosts = "a:nowhere"/],
  [{ dns_servers: ["ns.example"] }, /dns_servers = "ns.example": must be a list of IP addresses/],
  [{ dns_options: ["a\nnameserver 1.1.1.1"] }, /dns_options/],
  [{ security_opt: ["seccomp=/x.json"] }, /security_opt = "seccomp=\/x.json": is not known/],
  [{ shm_size: -1 }, /shm_size = -1/],
  [{ devices: [{ host_path: "/etc/passwd" }] }, /devices.host_path = "\/etc\/passwd": must be a device below \/dev/],
  [{ devices: [{ host_path: "/dev/../etc" }] }, /devices.host_path/],
  [{ devices: [{ host_path: "/dev/fuse", container_path: "x" }] }, /container_path = "x": must be an absolute path/],
  [{ devices: [{ host_path: "/dev/fuse", cgroup_permissions: "x" }] }, /cgroup_permissions = "x"/],
  [{ devices: [{ hostpath: "/dev/fuse" }] }, /devices.hostpath: is not one of host_path/],
  [{ oom_score_adj: 1001 }, /oom_score_adj = 1001/],
] as const) {
  test(`refused: ${JSON.stringify(bad)}`, () => {
    assert.throws(() => parseContainer(bad), message);
  });
}

test("any value of any key is read, or refused by a ConfigError that names the key", () => {
  const key = fc.constantFrom(...Object.values(containerTable).map((row) => row.key));
  const value = fc.oneof(
    fc.anything({ maxDepth: 3 }),
    fc.array(fc.string()),
    fc.array(fc.record({ type: fc.constant("tmpfs"), target: fc.string() })),
    fc.dictionary(fc.string(), fc.string()),
  );
  fc.assert(
    fc.property(key, value, (name, content) => {
      try {
        const settings = parseContainer({ [name]: content });
        for (const { path, options } of settings.tmpfsMounts) {
          assert.match(path, /^\/./);
          assert.ok(options.every((option) => !option.includes(",")));
        }
        for (const word of [...settings.dns.searches, ...settings.dns.options]) assert.doesNotMatch(word, /\s/);
        for (const { soft, hard } of settings.limits) assert.ok(soft <= hard);
      } catch (error) {
        assert.ok(error instanceof ConfigError, String(error));
        assert.ok(
          error.message.startsWith(`config: ${name}`) || error.message.startsWith("config: mount"),
          error.message,
        );
      }
    }),
    { numRuns: 2000 },
  );
});
