import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { noSeccompWarning } from "../../../vmm/select-vmm.ts";
import { parsePluginConfig } from "../../config/plugin/plugin-config.ts";
import type { ReadyHost, UnreadyHost } from "../inspect-host.ts";
import type { ProductionFacts, Verdict } from "./check.ts";
import type { HostState } from "./host-state.ts";
import type { NomadAgent, NomadState } from "./nomad-state.ts";
import { judge, productionChecks } from "./production.ts";

/** A host without a fault. */
const goodState: HostState = {
  kernelRelease: "6.1.0-56-amd64",
  kernelArguments: ["quiet", "ro"],
  virtual: false,
  microcode: ["0x2b"],
  smt: "off",
  vulnerabilities: {
    itlb_multihit: "Not affected",
    mds: "Mitigation: Clear CPU buffers; SMT disabled",
    old_microcode: "Not affected",
  },
  ksm: "0",
  swaps: [],
  errorCorrection: true,
  consoleLevel: 4,
  serialConsole: true,
  kvm: { nested: "N", minTimerPeriodUs: "500", nxHugePages: "never" },
  pitThreads: [{ name: "kvm-pit/1", inRootCgroup: false }],
  favordynmods: true,
  cgroupVersion: 2,
  baseMount: { point: "/var/lib/litegix-fc-driver", type: "ext4", options: ["rw"] },
  basePath: { path: "/var/lib/litegix-fc-driver", fault: undefined },
  programs: [{ path: "/usr/local/bin/firecracker", fault: undefined }],
  hostPaths: [],
  takenUsers: [],
  listening: new Set([22, 4646]),
};

const goodAgent: NomadAgent = {
  version: "1.11.3",
  acl: true,
  client: true,
  addresses: { HTTP: "10.0.0.1", RPC: "10.0.0.1", Serf: "10.0.0.1" },
  ports: { HTTP: 4646, RPC: 4647, Serf: 4648 },
  tls: { http: true, rpc: true, verifiesClients: true },
  reservedPorts: "22,4646-4648",
  rawExec: false,
  pluginConfig: undefined,
};

function host(
  changed: { kind?: string; jailed?: boolean; warnings?: string[]; shortOfSpace?: boolean } = {},
): ReadyHost {
  const { kind = "firecracker", jailed = true, warnings = [], shortOfSpace = false } = changed;
  const vmm = { kind, version: "1.16.1", acceleration: "kvm", jailed };
  return { ready: true, selected: { vmm, reason: "", warnings }, facts: { shortOfSpace } } as unknown as ReadyHost;
}

interface Changes {
  state?: Partial<HostState>;
  config?: object;
  host?: ReadyHost | UnreadyHost;
  agent?: Partial<NomadAgent>;
  nomad?: NomadState;
}

function facts(changes: Changes = {}): ProductionFacts {
  const reached = {
    reached: true,
    address: "http://127.0.0.1:4646",
    agent: { ...goodAgent, ...changes.agent },
  } as const;
  return {
    state: { ...goodState, ...changes.state },
    settings: parsePluginConfig({ vmm: "firecracker", ...changes.config }),
    host: changes.host ?? host(),
    nomad: changes.nomad ?? reached,
  };
}

function verdict(id: string, changes: Changes): Verdict {
  const result = judge(facts(changes)).find((one) => one.id === id);
  assert.ok(result, id);
  return result;
}

const status = (id: string, changes: Changes): string => verdict(id, changes).status;

describe("the production checks", () => {
  it("find nothing on a host without a fault; four things nobody can know or need not", () => {
    const others = judge(facts()).filter((one) => one.status !== "ok");
    assert.deepEqual(
      others.map(({ id, status: found }) => [id, found]),
      [
        ["hanging_vmm", "unknown"],
        ["balloon", "not_applicable"],
        ["rowhammer", "unknown"],
      ],
    );
  });

  it("have ids of their own, and docs/operate/production.md lists the same", async () => {
    const ids = productionChecks.flatMap(({ checks }) => checks.map(({ id }) => id));
    assert.equal(new Set(ids).size, ids.length);
    const page = await readFile(join(import.meta.dirname, "../../../../docs/operate/production.md"), "utf8");
    assert.deepEqual(
      [...page.matchAll(/^### `(\w+)`$/gm)].map(([, id]) => id),
      ids,
    );
  });

  const warnings: readonly (readonly [id: string, found: RegExp, changes: Changes])[] = [
    ["vmm", /auto/, { config: { vmm: "auto" } }],
    ["isolation", /qemu/, { host: host({ kind: "qemu" }) }],
    ["seccomp", /no filter/, { host: host({ warnings: [noSeccompWarning] }) }],
    ["jailer", /enabled = false/, { config: { jailer: { enabled: false } } }],
    ["jailer", /without the jailer/, { host: host({ kind: "qemu", jailed: false }) }],
    ["users", /eve/, { state: { takenUsers: ["eve of /etc/passwd"] } }],
    ["program_paths", /\/opt/, { state: { programs: [{ path: "/opt/fc", fault: "/opt belongs to user 1" }] } }],
    ["base_path", /\/srv/, { state: { basePath: { path: "/srv/b", fault: "/srv can be written" } } }],
    ["base_file_system", /shared/, { state: { baseMount: { point: "/", type: "ext4", options: [] } } }],
    ["base_file_system", /memory/, { state: { baseMount: { point: "/b", type: "tmpfs", options: [] } } }],
    [
      "base_file_system",
      /nodev, noexec/,
      { state: { baseMount: { point: "/b", type: "xfs", options: ["nodev", "noexec"] } } },
    ],
    ["base_file_system", /local/, { state: { baseMount: { point: "/b", type: "nfs4", options: [] } } }],
    ["cgroups", /version 1/, { state: { cgroupVersion: 1 } }],
    ["cgroups", /no cgroups/, { state: { cgroupVersion: undefined } }],
    ["resource_limits", /jailer/, { config: { jailer: { enabled: false } } }],
    [
      "allowed_host_paths",
      /team/,
      {
        config: { allowed_host_paths: ["/srv/team"] },
        state: { hostPaths: [{ path: "/srv/team", fault: "/srv/team belongs to user 1000" }] },
      },
    ],
    ["network_limits", /connections = 0/, { config: { network: { connections: 0 } } }],
    ["host_services", /all ports/, { config: { network: { allow_host: ["0.0.0.0/0"] } } }],
    ["host_services", /ports 4646-4646/, { config: { network: { allow_host: ["0.0.0.0/0:4646/tcp"] } } }],
    ["image_access", /cached/, { config: { image_access: "cached" } }],
    ["oversize", /true/, { config: { allow_oversize: true } }],
    ["huge_pages", /true/, { config: { allow_huge_pages: true } }],
    ["disk_space", /min_free = 0/, { config: { disk: { min_free: 0 } } }],
    ["disk_space", /less is free/, { host: host({ shortOfSpace: true }) }],
    ["network_limits", /packet_rate = 0/, { config: { network: { packet_rate: 0 } } }],
    ["disk_limits", /bandwidth = 0/, { config: { disk: { bandwidth: 0 } } }],
    ["disk_limits", /ops = 0/, { config: { disk: { ops: 0 } } }],
    ["metadata", /true/, { config: { network: { allow_metadata: true } } }],
    ["allowed_host_paths", /\/etc/, { config: { allowed_host_paths: ["/etc", "/srv/images"] } }],
    ["kernel", /5\.15/, { state: { kernelRelease: "5.15.0-1-generic" } }],
    [
      "cpu_vulnerabilities",
      /mds/,
      { state: { vulnerabilities: { mds: "Mitigation: Clear CPU buffers; SMT vulnerable" } } },
    ],
    ["cpu_vulnerabilities", /srso/, { state: { vulnerabilities: { srso: "Mitigation: Safe RET, no microcode" } } }],
    ["kernel_mitigations", /no_guest_host/, { state: { kernelArguments: ["mitigations=auto,no_guest_host"] } }],
    ["kernel_mitigations", /off/, { state: { kernelArguments: ["quiet", "mitigations=off"] } }],
    ["kernel_mitigations", /spec_store/, { state: { kernelArguments: ["spec_store_bypass_disable=off"] } }],
    ["microcode", /different/, { state: { microcode: ["0x1", "0x2"] } }],
    ["microcode", /old/, { state: { vulnerabilities: { old_microcode: "Vulnerable" } } }],
    ["smt", /on/, { state: { smt: "on" } }],
    ["ksm", /1/, { state: { ksm: "1" } }],
    [
      "swap",
      /sda2/,
      {
        state: {
          swaps: [
            { name: "/dev/sda2", kind: "plain" },
            { name: "/dev/dm-1", kind: "encrypted" },
          ],
        },
      },
    ],
    ["nested", /on/, { state: { kvm: { ...goodState.kvm, nested: "Y" } } }],
    [
      "nx_huge_pages",
      /with the weakness/,
      {
        state: {
          kvm: { ...goodState.kvm, nxHugePages: "never" },
          vulnerabilities: { itlb_multihit: "KVM: Vulnerable" },
        },
      },
    ],
    ["nx_huge_pages", /each start/, { state: { kvm: { ...goodState.kvm, nxHugePages: "Y" }, favordynmods: false } }],
    ["favordynmods", /not set/, { state: { kvm: { ...goodState.kvm, nxHugePages: "Y" }, favordynmods: false } }],
    ["kvm_timer_period", /200/, { state: { kvm: { ...goodState.kvm, minTimerPeriodUs: "200" } } }],
    [
      "kvm_pit",
      /1 of 1/,
      {
        state: {
          kvm: { ...goodState.kvm, minTimerPeriodUs: "200" },
          pitThreads: [{ name: "kvm-pit/1", inRootCgroup: true }],
        },
      },
    ],
    ["kernel_log", /level 7/, { state: { consoleLevel: 7 } }],
    ["nomad_acl", /false/, { agent: { acl: false } }],
    [
      "nomad_addresses",
      /0\.0\.0\.0/,
      { agent: { addresses: { HTTP: "0.0.0.0" }, tls: { ...goodAgent.tls, verifiesClients: false } } },
    ],
    [
      "nomad_addresses",
      /::/,
      { agent: { addresses: { HTTP: "127.0.0.1 ::" }, tls: { ...goodAgent.tls, http: false } } },
    ],
    ["nomad_tls", /http is false/, { agent: { tls: { ...goodAgent.tls, http: false } } }],
    ["nomad_reserved_ports", /without 4647, 4648, 22/, { agent: { reservedPorts: "80,4646" } }],
    ["nomad_raw_exec", /on/, { agent: { rawExec: true } }],
  ];
  for (const [id, found, changes] of warnings) {
    it(`${id} warns: ${found.source}`, () => {
      const result = verdict(id, changes);
      assert.equal(result.status, "warning");
      assert.match(result.found, found);
    });
  }

  it("take a protected state for good", () => {
    const encrypted = {
      swaps: [
        { name: "/dev/dm-1", kind: "encrypted" },
        { name: "/dev/zram0", kind: "memory" },
      ],
    } as const;
    assert.equal(status("swap", { state: encrypted }), "ok");
    assert.equal(status("nomad_addresses", { agent: { addresses: { HTTP: "0.0.0.0" } } }), "ok");
    const itlb = { itlb_multihit: "KVM: Mitigation: Split huge pages" };
    assert.equal(
      status("nx_huge_pages", { state: { vulnerabilities: itlb, kvm: { ...goodState.kvm, nxHugePages: "Y" } } }),
      "ok",
    );
  });

  it("leave out what the host does not have", () => {
    const kvm = { nested: undefined, minTimerPeriodUs: undefined, nxHugePages: undefined };
    for (const id of ["nested", "nx_huge_pages", "kvm_timer_period", "favordynmods"]) {
      assert.equal(status(id, { state: { kvm } }), "not_applicable", id);
    }
    assert.equal(status("favordynmods", { state: { kernelRelease: "6.18.1" } }), "not_applicable");
    assert.equal(status("microcode", { state: { virtual: true } }), "not_applicable");
    assert.equal(status("kernel_log", { state: { serialConsole: false } }), "not_applicable");
    const loopback = {
      addresses: { HTTP: "127.0.0.1", RPC: "127.0.0.1" },
      tls: { http: false, rpc: false, verifiesClients: false },
    };
    assert.equal(status("nomad_tls", { agent: loopback }), "not_applicable");
    assert.equal(status("nomad_reserved_ports", { agent: { client: false } }), "not_applicable");
  });

  it("say unknown, and why, if nothing can be known", () => {
    const unready: UnreadyHost = { ready: false, health: "unhealthy", reason: "mksquashfs is not installed" };
    for (const id of ["isolation", "seccomp", "jailer"]) {
      assert.deepEqual(verdict(id, { host: unready }).found, "this host is not ready: mksquashfs is not installed");
    }
    const nomad: NomadState = { reached: false, refused: false, reason: "no agent" };
    for (const id of ["nomad_acl", "nomad_addresses", "nomad_tls", "nomad_reserved_ports", "nomad_raw_exec"]) {
      const { status: found, found: text } = verdict(id, { nomad });
      assert.deepEqual([found, text], ["unknown", "not checked: no agent"], id);
    }
    assert.equal(status("nomad_acl", { nomad: { ...nomad, refused: true } }), "ok");
    assert.equal(status("smt", { state: { smt: "notsupported", virtual: true } }), "unknown");
    assert.equal(status("kvm_pit", { state: { pitThreads: [] } }), "unknown");
  });
});
