import assert from "node:assert/strict";
import { mkdtempDisposable, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { parseEgressRule } from "../../network/plan/egress-policy.ts";
import { openServiceWarnings } from "./open-services.ts";

/** Nomad's API on all addresses, sshd on one, docker's API not listening. */
const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1226 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 070200C0:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1 0 100 0 0 10 0
   2: 00000000:0947 0100007F:0016 01 00000000:00000000 00:00000000 00000000     0        0 3 1 0 100 0 0 10 0
`;

describe("services of the host that VMs reach", () => {
  it("are named if allow_host opens their port to all addresses", async () => {
    await using directory = await mkdtempDisposable(join(tmpdir(), "litegix-open-"));
    const path = join(directory.path, "tcp");
    await writeFile(path, table);
    const warningsOf = (...rules: string[]): Promise<string[]> =>
      openServiceWarnings(rules.map(parseEgressRule), [path, "/nonexistent"]);
    const [warning, ...more] = await warningsOf("0.0.0.0/0");
    assert.match(warning ?? "", /VMs reach Nomad's API: .*port 4646.*allow_host/);
    assert.deepEqual(more, []);
    assert.deepEqual(await warningsOf("0.0.0.0/0:4000-5000/tcp"), [warning]);
    assert.deepEqual(await warningsOf("0.0.0.0/0:20000-32000", "192.0.2.7", "0.0.0.0/0/udp"), []);
  });
});
